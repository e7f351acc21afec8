"""Classes as vectors: an embedding of 16 numbers in place of a one-hot label, learnt in the encoder and in the decoder.

python demos/embedding.py          # half a minute
python demos/embedding.py --full   # 10 epochs
"""

# %% [x, E(c)] -> 128 -> 64 -> z of two dimensions, and back with an embedding of the decoder's own
import numpy as np

import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.tables import table

options = demo_options(__doc__, "embedding", epochs=5, full_epochs=10)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test
condition = mc.conditions.Classes(len(names), embedding=16)

model = mc.build("embedding", condition=condition, image_shape=test.x.shape[1:], seed=0)
before = {name: model.kernels.to_numpy(value).copy() for name, value in model.parameters.items()}
model.fit(data.train.x, data.train.y, epochs=options.epochs, seed=0)
print("Test loss {loss:.1f} = {reconstruction:.1f} + KL {kl:.1f} nats\n".format(**model.evaluate(test.x, test.y)))

# %% Which classes has the decoder put near each other? Cosines of what training has added to the vectors
name = next(name for name in before if name.startswith("decoder") and before[name].shape == (len(names), 16))
moved = model.kernels.to_numpy(model.parameters[name]) - before[name]
unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
cosines = unit @ unit.T - 2 * np.eye(len(names))
rows = [[names[k], names[row.argmax()], f"{row.max():.2f}"] for k, row in enumerate(cosines)]
print(table(["class", "nearest in the embedding", "cosine"], rows, "<<>"))

# %% Drawn on demand; and where the test images lie
plots.save(plots.generated(model, names=names), out / "generated.png")
plots.save(plots.posterior_means(model, test.x, test.y, names=names), out / "posterior_means.png")
print(f"\nThe pictures are in {out}/")

"""A latent of two dimensions, to look at: where the images lie, what the plane looks like decoded, walks, "draw a 5".

python demos/latent_space.py          # half a minute
python demos/latent_space.py --full   # 20 epochs
"""

# %% One hidden layer of 512 each way, z of two dimensions; the label reaches encoder and decoder
import numpy as np

import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.tables import table

options = demo_options(__doc__, "latent_space", epochs=4, full_epochs=20)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test

model = mc.build("latent2d", classes=len(names), image_shape=test.x.shape[1:], seed=0)
model.fit(data.train.x, data.train.y, epochs=options.epochs, batch_size=50, seed=0)
print("Test loss {loss:.1f} = {reconstruction:.1f} + KL {kl:.1f} nats\n".format(**model.evaluate(test.x, test.y)))

# %% Where the test images lie. The classes are mixed: the decoder is told the class, so z need not say it
plots.save(plots.posterior_means(model, test.x, test.y, names=names), out / "posterior_means.png")

# %% Of one class alone they should look like the prior N(0, I); its circles say how many lie inside 1, 2 and 3 sigma
FIVE = 5
plots.save(plots.posterior_means(model, test.x, test.y, FIVE, names=names), out / "one_class.png")
mean, log_var = model.encode(test.x, test.y)
rows = []
for k, name in enumerate(names):
    centre, spread = mean[test.y == k].mean(axis=0), mean[test.y == k].var(axis=0)
    deviation = np.sqrt(spread + np.exp(log_var[test.y == k]).mean(axis=0))
    rows.append([name, *(f"{v:.2f}" for pair in zip(centre, deviation, strict=True) for v in pair)])
print(table(["class", "z[0]: mean", "deviation", "z[1]: mean", "deviation"], rows, "<>>>>"))
print("of z ~ q(z|x,c); the prior's are 0 and 1")

# %% The whole plane, decoded as a five, and draw a five: z ~ N(0, I)
plots.save(plots.manifold(model, FIVE, names=names), out / "manifold.png")
plots.save(plots.many_latents(model, FIVE, names=names, seed=1), out / "draw_a_five.png")

# %% A walk between two images of a class, for each class; and reconstructions
plots.save(plots.walks(model, test.x, test.y, names=names), out / "walks.png")
plots.save(plots.reconstructions(model, test.x, test.y, names=names), out / "reconstructions.png")
print(f"\nThe pictures are in {out}/")

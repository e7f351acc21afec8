"""Pixels as Gaussians of deviation 0.5 and a KL from five samples: the protocol of a published Keras model.

python demos/gaussian.py          # half a minute
python demos/gaussian.py --full   # 10 epochs: published test losses 243.71 after the first, 233.74 after the last
"""

# %% Batch 64, Adam 1e-3. The loss is a density's, so its level has no meaning of its own: 0.5 fixes it
import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options

options = demo_options(__doc__, "gaussian", epochs=4, full_epochs=10)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test

model = mc.build("gaussian", classes=len(names), image_shape=test.x.shape[1:], seed=0)
pair = test.x, test.y
fitted = model.fit(data.train.x, data.train.y, validation_data=pair, epochs=options.epochs, batch_size=64, seed=0)
for epoch in sorted({0, options.epochs - 1}):
    loss, nll, kl = (fitted.history[f"val_{name}"][epoch] for name in ("loss", "reconstruction", "kl"))
    print(f"Test loss after epoch {epoch + 1}: {loss:.2f} = {nll:.2f} + KL {kl:.2f} nats")

# %% A fixed z under all labels: the style stays, the digit changes
plots.save(plots.one_latent(model, names=names), out / "one_latent.png")

# %% The z of an image of one class, decoded under another
plots.save(plots.relabelled(model, test.x, test.y, names=names), out / "other_class.png")

# %% A walk between two images of a class, and where the images lie
plots.save(plots.walks(model, test.x, test.y, names=names), out / "walks.png")
plots.save(plots.posterior_means(model, test.x, test.y, names=names), out / "posterior_means.png")
print(f"\nThe pictures are in {out}/")

"""Two ways to tell a network the label: beside the pixels in the first layer, or through a layer of its own.

python demos/pathways.py          # half a minute
python demos/pathways.py --full   # 10 epochs
"""

# %% One hidden layer of 256 each way, z of 16 dimensions: joined at the input, and image and label apart at first
import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.diagnostics import diagnose
from minicvae.tables import table

options = demo_options(__doc__, "pathways", epochs=4, full_epochs=10)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test

rows = []
for title, preset in (("joined at the input", "mlp"), ("pathways of their own", "pathways")):
    sizes = {"encoder_widths": (256,), "decoder_widths": (256,), "image_shape": test.x.shape[1:]}
    model = mc.build(preset, classes=len(names), seed=0, **sizes)
    model.fit(data.train.x, data.train.y, epochs=options.epochs, seed=0)
    losses, found = model.evaluate(test.x, test.y), diagnose(model, test.x[:2000], test.y[:2000])
    weights = sum(value.size for _, value in model.parameters.items())
    rows.append([title, f"{weights:,}", *(f"{v:.1f}" for v in losses.values()), f"{found.leakage.found:.0%}"])
    plots.save(plots.generated(model, names=names), out / f"{preset}.png")

# %% Does it pay? Test losses in nats, and how often a linear probe reads the label off z
# A z of sixteen dimensions knows the digit too, so one that is drawn at random often contradicts the label, and the
# pictures show it: `digits_on_demand.py` tells what helps.
print(f"\n{table(['label', 'parameters', 'test loss', 'reconstruction', 'KL', 'label in z'], rows, '<>>>>>')}")
print(f"\nThe pictures are in {out}/: mlp.png and pathways.png")

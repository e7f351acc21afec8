"""Complete a digit from one, two or three of its quadrants: a baseline net with one answer, a CVAE with many.

Run it as a script, or cell by cell in an editor that knows `# %%`:

    python demos/quadrants.py                  # a short run, two minutes
    python demos/quadrants.py --full           # the whole protocol, an hour on two cores
"""

# %% The protocol
# Sohn, Lee, Yan 2015, section 5.1, with the networks and the schedule of Pyro's replication: Adam 1e-3, batches of 128,
# at most 50 epochs, stop when 3 epochs in a row have brought nothing. The last 10,000 training images are held out to
# say when to stop; the test images are looked at once, at the end. The short run sees a fifth of the training images
# for a few epochs.
import argparse
from pathlib import Path

import minicvae as mc
from minicvae.checkpoint import whole_file
from minicvae.tables import table

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quadrants", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3], help="how many are seen")
parser.add_argument("--full", action="store_true", help="all images, until nothing improves: the published protocol")
parser.add_argument("--finish", action="store_true", help="go on at a tenth of the rate where training has stopped")
parser.add_argument("--view", action="store_true", help="let the generation net see the visible pixels too")
parser.add_argument("--alpha", type=float, default=1.0, help="1: the CVAE (default); 0: GSNN; between: the hybrid")
parser.add_argument("--seed", type=int, default=0, help="of weights, shuffles and noise (default: 0)")
parser.add_argument("--epochs", type=int, help="at most; default: 6, the baseline 4; --full: 50")
parser.add_argument("--limit", type=int, metavar="N", help="train on the first N images only (default: 10,000)")
parser.add_argument("--out", type=Path, default=Path("runs/demos/quadrants"), help="folder for the results")
args = parser.parse_known_args()[0]  # a notebook has arguments of its own
args.out.mkdir(parents=True, exist_ok=True)

train, test = mc.datasets.load("mnist")
train, held_out = train.hold_out(10_000)
few = args.limit or (len(train) if args.full else 10_000)
images, validation, test_images = train.x[:few], held_out.x[: few // 5], test.x[: few // 5]
baseline_epochs, epochs, samples = (50, 50, 100) if args.full else (4, 6, 20)
baseline_epochs, epochs = args.epochs or baseline_epochs, args.epochs or epochs


# %% Two models for each task: first the baseline net, then the CVAE on top of it
# With --finish the CVAE's training goes on at a tenth of the rate after it has stopped, until that has stopped too.
def trained(model, hidden, epochs, name, rates):
    print(f"\n{name}: {model.parameters.size:,} parameters", flush=True)
    for stage, rate in enumerate(rates):
        history = model.fit(
            images,
            hidden,
            validation_data=(validation, hidden),
            epochs=epochs,
            batch_size=128,
            learning_rate=rate,
            early_stopping=3,
            seed=args.seed + stage,
        )
        losses = history.history["val_loss"]
        best = f"best of {len(losses)} epochs: {losses.index(min(losses)) + 1}"
        print(f"rate {rate:g}: {best}, held-out loss {min(losses):.2f}", flush=True)


# %% The scores: nats over the hidden pixels of the test images, lower is better
# The bound takes z from the recognition net, which sees the answer; Monte Carlo takes it from the prior, as one who has
# to answer must; importance sampling takes it from the recognition net and weighs it as the prior does.
header = ["quadrants seen", "baseline", "bound", "Monte Carlo", "importance", "gain"]
rows = []
for seen in args.quadrants:
    hidden = mc.masks.quadrants(seen)
    baseline = mc.BaselineNet.build(seed=args.seed)
    trained(baseline, hidden, baseline_epochs, f"baseline, {seen} quadrants", [1e-3])
    model = mc.ImageCVAE.build(baseline, view=args.view, alpha=args.alpha, seed=args.seed)
    trained(model, hidden, epochs, f"CVAE, {seen} quadrants", [1e-3, 1e-4] if args.finish else [1e-3])
    model.save(args.out / f"quadrants-{seen}.safetensors")

    scores = [baseline.evaluate(test_images, hidden)["loss"]]
    for estimator, s in (("bound", 10), ("prior", samples), ("importance", samples)):
        nll = model.negative_log_likelihood(test_images, hidden, estimator=estimator, samples=s, seed=args.seed)
        scores.append(float(nll.mean()))
    rows.append([str(seen), *(f"{score:.2f}" for score in (*scores, scores[0] - scores[-1]))])
    scored = table(header, rows, "<>>>>>")
    print(f"\n{scored}", flush=True)
    with whole_file(args.out / "table.txt") as temporary:
        temporary.write_text(scored + "\n", encoding="utf-8")

    # %% The picture: where the visible part leaves a doubt, the baseline blurs and the CVAE decides, each time anew
    mc.plots.save(mc.plots.completions(model, test.x, hidden), args.out / f"quadrants-{seen}.png")

print(f"\nThe table, the pictures and the models are in {args.out}/")

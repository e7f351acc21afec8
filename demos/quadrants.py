"""Complete a digit from one, two or three of its quadrants: a baseline net with one answer, a CVAE with many.

Run it as a script, or cell by cell in an editor that knows `# %%`:

    python demos/quadrants.py                  # a short run, a minute or two
    python demos/quadrants.py --full           # the whole protocol, an hour on two cores
"""

# %% The protocol
# Sohn, Lee, Yan 2015, section 5.1, with the networks and the schedule of Pyro's replication: Adam 1e-3, batches of 128,
# at most 50 epochs, stop when 3 epochs in a row have brought nothing. The last 10,000 training images are held out to
# say when to stop; the test images are looked at once, at the end. The short run sees a fifth of the training images
# for a few epochs.
import minicvae as mc
from minicvae.checkpoint import whole_file
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.tables import table


def arguments(parser):
    parser.add_argument(
        "--quadrants", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3], help="how many are seen"
    )
    parser.add_argument(
        "--rectangle", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="hide these pixels instead"
    )
    parser.add_argument("--finish", action="store_true", help="go on at a tenth of the rate where training has stopped")
    parser.add_argument("--view", action="store_true", help="let the generation net see the visible pixels too")
    parser.add_argument("--alpha", type=float, default=1.0, help="1: the CVAE (default); 0: GSNN; between: the hybrid")
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffles and noise (default: 0)")


args = demo_options(__doc__, "quadrants", epochs=6, full_epochs=50, limit=10_000, arguments=arguments)
data = prepare(args.data, limit=args.limit, held_out=True)
images, few = data.train.x, len(data.train) // 5
validation, test_images, samples = data.held_out.x[:few], data.test.x[:few], 100 if args.full else 20
shape = images.shape[1:]
tasks = {f"quadrants-{seen}": mc.masks.quadrants(seen, shape) for seen in args.quadrants}
if args.rectangle:
    tasks = {"rectangle": mc.masks.rectangle(*args.rectangle, shape)}


# %% Two models for each task: first the baseline net, then the CVAE on top of it
# With --finish the CVAE's training goes on at a tenth of the rate after it has stopped, until that has stopped too.
def trained(model, hidden, name, rates):
    print(f"\n{name}: {model.parameters.size:,} parameters", flush=True)
    for stage, rate in enumerate(rates):
        history = model.fit(
            images,
            hidden,
            validation_data=(validation, hidden),
            epochs=args.epochs,
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
# to answer must; importance sampling takes it from the recognition net and weighs it as the prior does. A GSNN has no
# recognition net to take it from: none was trained.
ESTIMATORS = {"prior": samples} if args.alpha == 0 else {"bound": 10, "prior": samples, "importance": samples}
header = ["task", "baseline", "bound", "Monte Carlo", "importance", "gain"]
rows = []
for name, hidden in tasks.items():
    baseline = mc.BaselineNet.build(image_shape=shape, seed=args.seed)
    trained(baseline, hidden, f"{name}, baseline", [1e-3])
    model = mc.ImageCVAE.build(baseline, view=args.view, alpha=args.alpha, seed=args.seed)
    trained(model, hidden, f"{name}, CVAE", [1e-3, 1e-4] if args.finish else [1e-3])
    model.save(args.out / f"{name}.safetensors")

    scores = {"baseline": baseline.evaluate(test_images, hidden)["loss"]}
    for estimator, s in ESTIMATORS.items():
        nll = model.negative_log_likelihood(test_images, hidden, estimator=estimator, samples=s, seed=args.seed)
        scores[estimator] = float(nll.mean())
    scores["gain"] = scores["baseline"] - scores[list(ESTIMATORS)[-1]]
    columns = ("baseline", "bound", "prior", "importance", "gain")
    rows.append([name, *(f"{scores[column]:.2f}" if column in scores else "" for column in columns)])
    scored = table(header, rows, "<>>>>>")
    print(f"\n{scored}", flush=True)
    with whole_file(args.out / "table.txt") as temporary:
        temporary.write_text(scored + "\n", encoding="utf-8")

    # %% The picture: where the visible part leaves a doubt, the baseline blurs and the CVAE decides, each time anew
    mc.plots.save(mc.plots.completions(model, data.test.x, hidden), args.out / f"{name}.png")

print(f"\nThe table, the pictures and the models are in {args.out}/")

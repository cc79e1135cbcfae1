"""Draw docs/graph.png from the Makefile's own rules: `.venv/bin/python -m docs.draw_graph`."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
RULE = re.compile(r"^(?P<targets>\$\(.+?)\n\t\$\(call RUN_STAGE,(?P<stage>\w+)\)", re.MULTILINE)
VARIABLE = re.compile(r"\$\((?:\w+:%=\$\()?([A-Z_]+)\)")
TEXT = {
    "LABELS": "raw/\nDICOM files, label CSVs",
    "SLICES": "slices.parquet\nrejected.parquet",
    "FOLDS_TABLE": "folds.parquet",
    "IMAGES": "png/<view>/\n<view>.parquet",
    "CNN": "fold-K.safetensors",
    "EMBEDDINGS": "fold-K.\nembeddings.parquet",
    "REDUCED": "fold-K.\nreduced.parquet",
    "SEQUENCE": "fold-K.\nsequence.safetensors",
    "ENDTOEND": "fold-K.\nendtoend.safetensors",
    "PREDICTIONS": "fold-K.parquet\nout of fold, and test",
    "FOLD_SCORE": "fold-K.score.json",
    "OOF_SCORE": "oof.score.json\ntest.score.json",
    "CSV": "<run>.csv\nthe submission",
    "LEADERBOARD": "leaderboard.csv",
}
PLACE = {
    "LABELS": (0, 0), "SLICES": (1, 0), "FOLDS_TABLE": (2, 0.6), "IMAGES": (2, -0.6), "CNN": (3, 0),
    "EMBEDDINGS": (4, 0), "REDUCED": (4, -1.7), "SEQUENCE": (3, -1.7), "PREDICTIONS": (2, -1.7), "CSV": (1, -1.0),
    "ENDTOEND": (3, -2.5),
    "FOLD_SCORE": (1, -1.8), "OOF_SCORE": (1, -2.5), "LEADERBOARD": (0, -2.15),
}  # fmt: skip
"""Column and row of each file."""


def edges(makefile: str) -> list[tuple[str, str, str]]:
    """Return (read, left, stage) for each file that a stage's rule reads and the file that it leaves."""
    joined = makefile.replace("\\\n", " ").replace("submissions/leaderboard.csv:", "$(LEADERBOARD):")
    found = []
    for rule in RULE.finditer(joined):
        head, _, prerequisites = rule["targets"].split("|")[0].rpartition(": ")
        target = {"INDEX_RECORD": "SLICES"}.get(name := VARIABLE.findall(head)[-1], name)
        for name in dict.fromkeys(VARIABLE.findall(prerequisites)):
            # A recipe without `endtoend` predicts by what its steps before it left.
            reads = {"RAW": ("LABELS",), "LAST_MODEL": ("SEQUENCE", "ENDTOEND")}.get(name, (name,))
            found += [(read, target, rule["stage"]) for read in reads if read in TEXT]
    return found


def draw(found: list[tuple[str, str, str]], path: Path) -> None:
    """Draw files as boxes and stages as arrows."""
    figure, axes = plt.subplots(figsize=(14, 6))
    boxes = {}
    for name in {end for edge in found for end in edge[:2]}:
        x, y = PLACE[name][0] * 2.8, PLACE[name][1] * 2
        style = {"boxstyle": "round,pad=0.05", "fc": "#eef", "ec": "#446", "zorder": 2}
        boxes[name] = axes.add_patch(FancyBboxPatch((x - 0.85, y - 0.28), 1.7, 0.56, **style))
        axes.text(x, y, TEXT[name], ha="center", va="center", fontsize=8, zorder=3)
    for read, left, stage in found:
        (x0, y0), (x1, y1) = PLACE[read], PLACE[left]
        ends = {"patchA": boxes[read], "patchB": boxes[left]}
        arrow = {"arrowstyle": "-|>", "color": "#446", "mutation_scale": 14, **ends}
        axes.annotate("", (x1 * 2.8, y1 * 2), (x0 * 2.8, y0 * 2), arrowprops=arrow, zorder=1)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
        middle = ((x0 + x1) * 1.4, y0 + y1 + 0.12)
        axes.text(*middle, stage, color="#a33", ha="center", fontsize=9, weight="bold", zorder=4, bbox=ground)
    axes.set(xlim=(-1.1, 12.3), ylim=(-5.6, 1.7))
    axes.axis("off")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    draw(edges((ROOT / "Makefile").read_text()), ROOT / "docs" / "graph.png")

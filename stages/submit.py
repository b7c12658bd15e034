"""Fill in the sample submission, in its order and columns, and judge groups of test images.

Without a sample submission, all predictions are listed.
"""

from pathlib import Path

import pandas as pd

from steelseg.core.files import write_json, write_text
from steelseg.core.params import load
from steelseg.core.sealed import read_sealed_json
from steelseg.data import image_table, label_csv
from steelseg.predict.predictions import PredictionRow, judge_groups, read_predictions
from steelseg.submit import answers
from steelseg.submit.answers import SubmitConfig
from steelseg.tracking.stage import run

PREDICTIONS, OUT = Path("data/predictions.parquet"), Path("submission.csv")
GROUPS = Path("data/groups.csv")


def main() -> None:
    """Write submission.csv after checking it against the sample, and data/groups.csv."""
    config = load(SubmitConfig)
    path = Path(config.data_root) / config.dataset / "sample_submission.csv"
    predictions = read_predictions(PREDICTIONS)
    sample = label_csv.read(path) if path.exists() else answers.ask_for_all(predictions)
    images = image_table.read(Path("data/test_images.parquet"))
    sizes = dict(zip(images.names, images.sizes_hw, strict=True))
    rles = answers.answer(sample, path, predictions, sizes)
    answers.write_submission(OUT, sample, rles)
    masks = sum(map(bool, rles))
    write_json(Path("metrics/submit.json"), {"rows": len(rles), "masks": masks})
    print(f"{OUT}: {len(rles)} rows, {masks} of them masks")
    groups = read_sealed_json(Path("data/test_groups.json"))["groups"]
    rows = pd.DataFrame(predictions, columns=PredictionRow._fields)
    verdicts = judge_groups([rows], groups, sorted(set(rows["class_id"])))
    write_text(GROUPS, verdicts.to_csv(index=False))


if __name__ == "__main__":
    run(main)

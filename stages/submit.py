"""Answer the sample submission, row by row, in its own order and columns; without one, all."""

from pathlib import Path

from steelseg.core.files import write_json
from steelseg.core.params import load
from steelseg.data import image_table, label_csv
from steelseg.predict import submission
from steelseg.predict.submission import SubmitConfig
from steelseg.tracking.stage import run

PREDICTIONS, OUT = Path("data/predictions.parquet"), Path("submission.csv")


def main() -> None:
    """Write submission.csv, checked against the sample before it is put in place."""
    config = load(SubmitConfig)
    path = Path(config.data_root) / config.dataset / "sample_submission.csv"
    predictions = submission.read_predictions(PREDICTIONS)
    sample = label_csv.read(path) if path.exists() else submission.ask_for_all(predictions)
    images = image_table.read(Path("data/test_images.parquet"))
    sizes = dict(zip(images.names, images.sizes_hw, strict=True))
    answers = submission.answer(sample, path, predictions, sizes)
    submission.write_submission(OUT, sample, answers)
    masks = sum(map(bool, answers))
    write_json(Path("metrics/submit.json"), {"rows": len(answers), "masks": masks})
    print(f"{OUT}: {len(answers)} rows, {masks} of them masks")


if __name__ == "__main__":
    run(main)

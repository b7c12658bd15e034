"""Fill in the sample submission, in its order and columns; without one, list all predictions."""

from pathlib import Path

from steelseg.core.files import write_json
from steelseg.core.params import load
from steelseg.data import image_table, label_csv
from steelseg.predict.predictions import read_predictions
from steelseg.submit import answers
from steelseg.submit.answers import SubmitConfig
from steelseg.tracking.stage import run

PREDICTIONS, OUT = Path("data/predictions.parquet"), Path("submission.csv")


def main() -> None:
    """Write submission.csv after checking it against the sample."""
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


if __name__ == "__main__":
    run(main)

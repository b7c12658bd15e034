"""Check the raw data and pivot train.csv to one row per image, clean images included."""

from pathlib import Path

from steelseg.core.files import write_json
from steelseg.core.params import load
from steelseg.core.sealed import write_sealed_json
from steelseg.data import annotations, ignored, image_table, label_csv
from steelseg.data.annotations import PivotConfig
from steelseg.data.inspection import inspect_folder
from steelseg.data.listing import list_files
from steelseg.data.optional_files import IMAGES, SAMPLE, check_images, find_classes, read_images
from steelseg.tracking.stage import run


def main() -> None:
    """Write the tables of training and test images, the skipped images, and the data report."""
    config = load(PivotConfig, "pivot_csv")
    raw = Path(config.data_root) / config.dataset
    labels = label_csv.read(raw / config.csv)
    sample = label_csv.read(raw / SAMPLE) if (raw / SAMPLE).exists() else None
    asked = {row.class_id for row in sample.rows} if sample else set()
    classes = find_classes(raw, asked, {row.class_id for row in labels.rows})
    facts = read_images(raw / IMAGES)
    tests = list_files(raw / "test_images", may_be_empty=True).names
    if sample:
        annotations.check_sample(sample, tests, classes, raw / SAMPLE)
    check_images(facts, [*list_files(raw / "train_images").names, *tests], raw / IMAGES)
    train = inspect_folder(
        raw / "train_images",
        config.channels,
        skip_bad=config.on_bad_image == "skip",
        unlabelled={key for key, fact in facts.items() if not fact.labelled},
    )
    test = inspect_folder(raw / "test_images", train.pixels, skip_bad=False, may_be_empty=True)
    table = annotations.build(train, labels, classes, raw / config.csv, facts)
    table, train = ignored.mark(table, raw / ignored.FILE, train)
    test_table = annotations.build_unannotated(test, facts)

    image_table.write(Path("data/annotations.parquet"), table)
    image_table.write(Path("data/test_images.parquet"), test_table)
    write_sealed_json(Path("data/skipped_images.json"), {"images": train.left_out})
    report = annotations.report(table, test_table, (train, test), labels, sample)
    report |= ignored.report(table)
    write_json(Path("metrics/pivot_csv.json"), report)
    for line in (*annotations.describe(report, (train, test), classes), *ignored.describe(report)):
        print(line)


if __name__ == "__main__":
    run(main)

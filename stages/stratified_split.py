"""Split images into folds stratified by class; near-duplicates and parts stay together."""

from pathlib import Path

from steelseg.core.files import write_json
from steelseg.core.params import load
from steelseg.core.sealed import write_sealed_json
from steelseg.data import fold_table, image_table, splitting
from steelseg.data.splitting import SplitConfig
from steelseg.tracking.stage import run


def main() -> None:
    """Write the table of folds, the groups of test images, and a report on near-duplicates."""
    config = load(SplitConfig, "stratified_split")
    train = image_table.read(Path("data/annotations.parquet"))
    test = image_table.read(Path("data/test_images.parquet"))
    table = splitting.split(train, config)
    fold_table.write(Path("data/folds.parquet"), table, train.identity)
    groups = splitting.groups_of(test, config)
    write_sealed_json(Path("data/test_groups.json"), {"groups": groups})
    report = splitting.report(table, train, test)
    write_json(Path("metrics/stratified_split.json"), report)
    for line in (*splitting.describe(report, train.class_infos), *splitting.hint(train, config)):
        print(line)


if __name__ == "__main__":
    run(main)

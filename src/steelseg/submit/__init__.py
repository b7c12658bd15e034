"""Writes predictions as the csv that Kaggle expects."""

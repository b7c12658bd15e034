"""From predictions to the csv that Kaggle asks for."""

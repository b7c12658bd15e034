"""What every stage stands on: errors, parameters, files."""

"""Engine values to Docker's JSON: field names, zero values and nulls as the reference engine sends them. Pure."""

"""The digits example: a small vision transformer on scikit-learn's scans of handwritten digits."""

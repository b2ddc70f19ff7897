"""The data yaml of the tiny synthetic data set that most tests train on."""

TINY_DATA = """path: shapes
train: images/train
val: images/val
test: images/test
names: [ring, cross, arc, wave, star, spiral]
generator: {seed: 7, train: 10, val: 6, test: 3}
"""

import numpy as np

from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.detection_errors import find_mistakes


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_hand_made_image():
    labels = boxes((0, 0, 20, 10), (50, 0, 70, 10), (100, 0, 120, 10), (0, 90, 40, 99))
    found = boxes((0, 0, 20, 10), (1, 0, 20, 10), (50, 0, 70, 11), (100, 0, 120, 9), (60, 60, 80, 70))
    scores, classes = np.array([0.9, 0.8, 0.7, 0.2, 0.6]), np.array([0, 0, 2, 1, 1])
    misses, alarms = find_mistakes(found, scores, classes, labels, np.array([0, 1, 1, 2]))
    assert [(m.number, m.score, m.area, m.is_miss) for m in misses] == [(1, 0.2, 200, True), (2, 0, 360, True)]
    told = [(a.number, a.score, a.seen_as, a.twice) for a in alarms]
    assert told == [(0, 0.8, -1, True), (2, 0.7, 1, False), (1, 0.6, -1, False)]


def test_a_label_whose_box_fits_its_neighbour_better_is_told_so():
    labels = boxes((0, 0, 40, 20), (5, 0, 45, 20), (90, 0, 99, 30))
    (miss, alone), alarms = find_mistakes(labels[:1] + 1, np.array([0.9]), np.zeros(1, int), labels, np.zeros(3, int))
    assert not alarms and [miss.box[0], miss.score, miss.matched_to_other] == [5, 0.9, True]
    assert [alone.box[0], alone.score, alone.matched_to_other] == [90, 0, False]
    (unsure, *_), _ = find_mistakes(labels[:1] + 1, np.array([0.25]), np.zeros(1, int), labels, np.zeros(3, int))
    assert unsure.score == 0.25 and not unsure.matched_to_other


def test_nothing_to_find_or_nothing_found():
    nothing = np.zeros((0, 4)), np.zeros(0, int)
    box = boxes((0, 0, 20, 10))
    misses, alarms = find_mistakes(*nothing, np.zeros(0), box, np.array([1]))
    assert len(misses) == 1 and not alarms
    misses, alarms = find_mistakes(box, np.array([0.9]), np.array([1]), *nothing)
    assert not misses and [alarm.seen_as for alarm in alarms] == [-1]


def test_mistakes_are_the_counts_off_the_diagonal():
    rng = np.random.default_rng(0)
    missed = wrong = 0
    matrix = ConfusionMatrix(3)
    for _ in range(40):
        corner = rng.uniform(0, 60, (7, 2))
        every = np.concatenate((corner, corner + rng.uniform(8, 40, (7, 2))), 1)
        found, scores = every + rng.normal(0, 3, (7, 4)), rng.random(7)
        classes, label_classes = rng.integers(0, 3, 7), rng.integers(0, 3, 5)
        matrix.add(found, scores, classes, every[:5], label_classes)
        misses, alarms = find_mistakes(found, scores, classes, every[:5], label_classes)
        missed, wrong = missed + len(misses), wrong + len(alarms)
    assert missed == matrix.counts[3].sum() > 20
    assert wrong == matrix.counts[:3].sum() - np.trace(matrix.counts[:3, :3]) > 20

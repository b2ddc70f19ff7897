import numpy as np

from utils.metrics.confusion import ConfusionMatrix

NOTHING = np.zeros((0, 4)), np.zeros(0)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_hand_made_image():
    matrix = ConfusionMatrix(3)
    matrix.add(
        boxes((0, 0, 20, 10), (50, 0, 70, 10), (0, 50, 20, 60), (100, 100, 120, 110), (0, 0, 19, 10)),
        np.array([0.9, 0.8, 0.7, 0.2, 0.6]),
        np.array([0, 2, 1, 2, 0]),
        boxes((0, 0, 20, 10), (50, 0, 70, 11), (100, 100, 120, 110)),
        np.array([0, 1, 2]),
    )
    expected = np.zeros((4, 4), int)
    expected[0, 0] = 1  # found
    expected[2, 1] = 1  # a 1 taken for a 2
    expected[1, 3] = 1  # a 1 seen on bare ground
    expected[0, 3] = 1  # a 0 found a second time
    expected[3, 2] = 1  # a 2 missed, its detection being too unsure
    assert matrix.counts.tolist() == expected.tolist()


def test_larger_overlap_wins_whatever_the_score():
    matrix = ConfusionMatrix(2)
    label = boxes((0, 0, 20, 10))
    matrix.add(boxes((0, 0, 20, 7), (0, 0, 20, 9)), np.array([0.9, 0.3]), np.array([0, 1]), label, np.array([1]))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_each_label_is_used_once_and_second_best_pairs_are_kept():
    matrix = ConfusionMatrix(2)
    labels = boxes((0, 0, 20, 10), (4, 0, 24, 10))
    found = boxes((1, 0, 21, 10), (1.5, 0, 21.5, 10))
    matrix.add(found, np.array([0.9, 0.8]), np.array([0, 1]), labels, np.array([0, 1]))
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_confidence_and_overlap_must_be_exceeded():
    matrix = ConfusionMatrix(1, confidence=0.5, overlap=0.5)
    label = boxes((0, 0, 20, 10))
    matrix.add(boxes((0, 0, 10, 10)), np.array([0.9]), np.zeros(1), label, np.zeros(1))
    matrix.add(label, np.array([0.5]), np.zeros(1), label, np.zeros(1))
    assert matrix.counts.tolist() == [[0, 1], [2, 0]]
    matrix.add(boxes((0, 0, 10.1, 10)), np.array([0.51]), np.zeros(1), label, np.zeros(1))
    assert matrix.counts.tolist() == [[1, 1], [2, 0]]


def test_images_without_labels_or_detections():
    matrix = ConfusionMatrix(2)
    matrix.add(*NOTHING, np.zeros(0), *NOTHING)
    assert not matrix.counts.any()
    matrix.add(*NOTHING, np.zeros(0), boxes((0, 0, 9, 5), (9, 9, 20, 20)), np.array([1, 1]))
    matrix.add(boxes((0, 0, 9, 5)), np.array([0.9]), np.array([0]), *NOTHING)
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 2, 0]]


def test_columns_of_the_shares_sum_to_one_or_are_empty():
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[3, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert matrix.normalised().tolist() == [[0.75, 0, 0.5], [0.25, 0, 0.5], [0, 0, 0]]


def test_every_label_and_every_sure_detection_is_counted():
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(3)
    sure = labels = 0
    for _ in range(30):
        corner = rng.uniform(0, 80, (8, 2))
        every = np.concatenate((corner, corner + rng.uniform(5, 40, (8, 2))), 1)
        scores = rng.random(8)
        matrix.add(every + rng.normal(0, 2, (8, 4)), scores, rng.integers(0, 3, 8), every[:5], rng.integers(0, 3, 5))
        sure, labels = sure + (scores > 0.25).sum(), labels + 5
    assert matrix.counts[:3].sum() == sure and matrix.counts[:, :3].sum() == labels
    assert np.trace(matrix.counts[:3, :3]) > 0 and matrix.counts[3, 3] == 0

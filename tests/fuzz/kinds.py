"""All kinds, the cheapest first."""

from tests.fuzz import archives, checkpoints, exports, images, labels, options, yamls

KINDS = (
    labels.KIND,
    *archives.KINDS,
    yamls.DATA_KIND,
    yamls.HYP_KIND,
    options.KIND,
    *images.KINDS,
    checkpoints.KIND,
    exports.KIND,
    yamls.MODEL_KIND,
)

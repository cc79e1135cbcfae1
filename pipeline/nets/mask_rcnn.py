"""torchvision's Mask R-CNN around the hybrid pyramid: slabs in HU in, losses or boxes with masks out."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from pipeline.config import Boxes
from pipeline.nets.hybrid_pyramid import HybridPyramid

BOX_CELLS, MASK_CELLS, SAMPLES = 7, 14, 2
"""Cells of a side that a region is cut into for judging and for drawing, and samples a cell (He et al., Mask R-CNN)."""

MASK_LAYERS = 4
"""Convolutions that draw (He et al., Mask R-CNN, Fig. 4)."""


class SlabDetector(nn.Module):
    """A detector behind the clipping and scaling of HU, so that whoever runs it cannot forget them.

    Source: Chang et al. 2018, Image Preprocessing.
    """

    def __init__(self, detector: MaskRCNN, hu_range: tuple[float, ...], input_range: tuple[float, ...]) -> None:
        super().__init__()
        self.detector = detector
        self.hu_range = hu_range
        self.input_range = input_range

    def scaled(self, slabs: Tensor) -> Tensor:
        """Return slabs of HU clipped to `hu_range` and scaled to `input_range`, float32."""
        (low, high), (first, last) = self.hu_range, self.input_range
        return (slabs.float().clamp(low, high) - low) * ((last - first) / (high - low)) + first

    def losses(self, slabs: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return torchvision's losses by name: of proposals (two), of classes, of boxes and of masks.

        slabs: (images, slices, y, x) in HU; targets: `boxes` (n, 4) float32, x0, y0, x1, y1 in pixels, `labels` (n,)
        int64 from 1, `masks` (n, y, x) uint8, one dictionary an image, n = 0 where it shows no hemorrhage. Of a network
        in evaluation, batch normalisation keeps what it knows.
        """
        if self.training:
            return self.detector(list(self.scaled(slabs)), targets)
        # torchvision gives losses in training only.
        self.detector.train()
        for module in self.detector.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        try:
            return self.detector(list(self.scaled(slabs)), targets)
        finally:
            self.detector.eval()

    def forward(self, slabs: Tensor) -> list[dict[str, Tensor]]:
        """Return detections of slabs (images, slices, y, x) in HU, the most certain first; only in evaluation.

        One dictionary an image: `boxes` (n, 4) in pixels, `labels` (n,) from 1, `scores` (n,), and `masks`
        (n, 1, y, x), each pixel's probability.
        """
        return self.detector(list(self.scaled(slabs)))


def build_detector(boxes: Boxes, size_px: int, classes: int) -> MaskRCNN:
    """Return a Mask R-CNN for slabs of `size_px` a side and `classes` kinds of lesion beside the background.

    Anchors, samplers, suppression and heads are torchvision's, sized by the settings; images are neither normalised nor
    resized. Raises ValueError where the coarsest map's stride does not divide the side.
    """
    levels = len(boxes.anchors_px)
    coarsest = boxes.stride_px * 2 ** (levels - 1)
    if size_px % coarsest:
        raise ValueError(f"images of {size_px} pixels a side: give a multiple of {coarsest}, the coarsest map's stride")
    backbone = HybridPyramid(boxes.slab_slices, boxes.filters, boxes.blocks, levels, boxes.stride_px, boxes.channels)
    box_head = TwoMLPHead(boxes.channels * BOX_CELLS**2, boxes.box_head)
    for layer in (box_head.fc6, box_head.fc7):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    names = list(backbone.names)
    return MaskRCNN(
        backbone,
        min_size=size_px,
        max_size=size_px,
        image_mean=[0.0] * boxes.slab_slices,
        image_std=[1.0] * boxes.slab_slices,
        size_divisible=coarsest,
        _skip_resize=True,
        rpn_anchor_generator=AnchorGenerator(
            tuple((int(size),) for size in boxes.anchors_px), (tuple(boxes.ratios),) * levels
        ),
        rpn_batch_size_per_image=boxes.anchors_sampled,
        # The paper prunes the 256 best proposals; torchvision keeps as many of each level, prunes them together, and
        # keeps the best 256 of what is left.
        rpn_pre_nms_top_n_train=boxes.training_proposals,
        rpn_post_nms_top_n_train=boxes.training_proposals,
        rpn_pre_nms_top_n_test=boxes.proposals,
        rpn_post_nms_top_n_test=boxes.proposals,
        box_roi_pool=MultiScaleRoIAlign(names, BOX_CELLS, SAMPLES),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(boxes.box_head, classes + 1),
        box_batch_size_per_image=boxes.rois,
        box_positive_fraction=boxes.positive_share,
        box_score_thresh=boxes.least_score,
        mask_roi_pool=MultiScaleRoIAlign(names, MASK_CELLS, SAMPLES),
        mask_head=MaskRCNNHeads(boxes.channels, (boxes.mask_head,) * MASK_LAYERS, dilation=1),
        mask_predictor=MaskRCNNPredictor(boxes.mask_head, boxes.mask_head, classes + 1),
    )

"""What some versions of OpenCV lack, of those that the package runs with (4.6 to 5.x)."""

import cv2
import pytest

needs_darknet_importer = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromDarknet"), reason="OpenCV 5 has no importer of Darknet models"
)

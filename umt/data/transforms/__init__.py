"""Transforms of whole clips: on uint8 frames in the workers, on the batch on the device."""

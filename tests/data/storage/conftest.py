"""A bucket of a real S3 server, filled."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bucket(s3: str, mp4s: Path) -> str:
    """s3://... that holds what the folder `mp4s` does, put there by another client than the one under test."""
    import boto3

    store = boto3.client("s3", endpoint_url=s3)
    store.create_bucket(Bucket="videos")
    for path in sorted(mp4s.iterdir()):
        store.upload_file(str(path), "videos", f"k400/{path.name}")
    return "s3://videos/k400"

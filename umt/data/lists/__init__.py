"""Lists of videos in every form that people write them in, as rows."""

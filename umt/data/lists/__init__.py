"""Lists of videos, in every form that people write them in, as rows.

Reading order: reading.py is the entry, `read_list` for labels that are numbers and `read_named` for words, as
class_folders.py is for a folder per class; what they return is the `VideoList` of video_list.py, with label_sets.py
for several labels per video. Below them, lines.py says what one line is, text.py and parquet.py make a file into rows.
Around them: split_files.py (which file serves as train, val and test), subsets.py (rows held out, a few of each class),
balance.py (how many videos each class has), own_folder.py (what is in a folder about which nothing is known).
"""

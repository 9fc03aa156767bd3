"""`umt visualize`: where teacher and student look, what stays visible, and how closely the one follows the other.

Reading order: command.py; look.py (a clip and its maps), teacher.py and pretraining.py (teacher and mask), classes.py
(where answers come from), figures.py (pictures), report.py and page.html (the page).
"""

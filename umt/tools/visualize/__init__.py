"""`umt visualize`: where teacher and student look, what stays visible, and how closely the one follows the other.

Reading order: command.py; teacher.py (which teacher, if any), look.py (the numbers), figures.py (pictures of them),
report.py and page.html (the page).
"""

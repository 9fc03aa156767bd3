"""Pure nn.Modules, one idea a file: what the student, the teacher and the classifier are made of."""

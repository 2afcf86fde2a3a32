"""What the viewer's process and the model's process send to each other: numbers, text and numpy arrays only.

A request goes to the worker with a number. A final reply with that number answers it; any number of other replies
may come before. Pixels are not in a message: an `ArrayRef` says where in shared memory they are.
"""

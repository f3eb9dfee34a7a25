"""Does the model write like its owner? What `style_report.py` measures with, judges by and shows.

In the order in which a report is made:
held_out_replies    the conversations that training never saw, as exchanges: what stood before a reply, and the reply
model_replies       what both models make of them: the bits of each real reply, and replies of their own
writing_habits      what can be counted in a writer's replies: habits, plain numbers, copies from training
resampling          the intervals of all these, by drawing conversations again and again
author_classifier   whose reply is this?
style_measuring     all of these for one held-out set: how far writers lie apart, as plain numbers
style_verdict       from the numbers to one of four verdicts
style_picture, style_page    what people look at
blind_quiz          a test for people who know the owner: which reply is real?
canaries            invented secrets to plant into training data
leak_probe          what a stranger could draw out of the model, planted secrets among it

These modules use the chat's own beside this folder; the chat uses none of them.
"""

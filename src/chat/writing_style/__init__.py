"""The parts of the style report: how closely the tuned model writes like its owner, the imitated person.

In the order in which a report is made:
held_out_replies    the held-out conversations as exchanges: the messages before a reply, and the reply
member_names        the names before messages in a group, taken off before anything is judged
model_replies       tuned and base model on these exchanges: bits of each real reply, and generated replies
exported_model      the same of a GGUF file in llama.cpp, and what exporting costs
writing_habits      counts from a writer's replies: habits, plain numbers, copies from training
resampling          95 % intervals, by resampling conversations
author_classifier   whose reply is this? character n-grams and logistic regression
style_measuring     all measurements of one held-out set: distances between writers, bits per character
situations          do the replies fit what they answer, to whom, and when?
copying             copies, repeats and non-words against the owner's own rate
openers             the owner's first messages in conversations that the owner begins: compared apart
style_verdict       from these numbers to the verdict
style_picture       the report as one picture
style_page          the report and the examples as HTML pages
blind_quiz          a blind test for people who know the owner: which reply is real?
canaries            invented secrets to plant into training data
leak_probe          what a stranger could extract from the model, planted secrets included

They import modules of the chat; the chat imports none of them.
"""

"""The parts of streamer.py.

command   which protocol
serve     arguments, requests, worker threads, the frames they end in
source    what a dataset is to the rest: files, their formats, what `ready` says
text      what of a row is its document: a column, or a template
speaker   all documents in file order, as JSON lines
sample    the documents of the installed Python
local     a file, or a directory of files
hub       a dataset of the Hugging Face Hub, and directories in its layout
parquet   files read by row group
lines     files read from the front: JSON lines and plain text
block     rows of text as offsets and bytes
frames    the wire format
failure   what can go wrong, as the codes that the parent knows
"""

#!/bin/sh
# Starts the preprocess_start.sh of the project's folder, for those who are in this one.
#
#   bash preprocess_start.sh      ./preprocess_start.sh      python3 preprocess_start.sh
#
# A shell script and a Python program, as that one is.
''':'
case "${BASH##*/}:$0" in
    bash:*) typed="bash:$0" ;;
    *:*/*) typed=":$0" ;;
    *) typed="sh:$0" ;;
esac
PERSONALCHATBOT_STARTED_AS="${PERSONALCHATBOT_STARTED_AS:-$typed}"
export PERSONALCHATBOT_STARTED_AS
exec sh "$(dirname -- "$0")/../../preprocess_start.sh" "$@"
: <<'# end of the Python part'
'''
import os
import sys

os.environ.setdefault("PERSONALCHATBOT_STARTED_AS", "python3:" + sys.argv[0])
os.execvp("sh", ["sh", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../preprocess_start.sh"), *sys.argv[1:]])
# end of the Python part

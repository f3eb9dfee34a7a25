#!/usr/bin/env bash
# ONE COMMAND: turn a made-up WhatsApp export into a chatbot, on any computer, in about five minutes.
#   bash src/demo/run_demo.sh
# The first run makes .venv. Everything else is written to .demo/ and made anew each time, but for the conversations of
# earlier demos, which are kept. None of your files is read or changed. At a terminal it ends in the chat, otherwise with
# the measured numbers.
# Exit status: 0, or 1 when a step fails or the tuned model is not clearly better than the base.
set -euo pipefail
case "${1-}" in
    "") ;;
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" # the comment above
        exit 0
        ;;
    *)
        echo "run_demo: takes no arguments, see --help" >&2
        exit 2
        ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash src/demo/set_up_venv.sh requirements.txt
export PATH="$PWD/.venv/bin:$PATH"
umask 077
mkdir -p .demo
find .demo -mindepth 1 -maxdepth 1 ! -name 'conversation*' -exec rm -rf {} +
touch .demo/conversation.txt
num_lines_of_earlier_demos=$(wc -l <.demo/conversation.txt)
started=$SECONDS

# Run a step: print its title, the command as typed, and the seconds it took.
step() {
    local title=$1 step_started=$SECONDS
    shift
    printf '\n=== %s\n$ %s\n' "$title" "$*"
    "$@"
    printf -- '--- %s s\n' "$((SECONDS - step_started))"
}

model=(--base-model-id .demo/small_base --saved-model-path .demo/saved_model)
where=("${model[@]}" --path-to-data .demo/formatted_data.jsonl)
chat=(python3 src/chat/chat_bot.py "${where[@]}" --conversation-path .demo/conversation.txt)

step "A made-up export of two people: Noam and Ruth" \
    python3 src/demo/make_sample_chat.py --output .demo/WhatsappChat.txt
step "A small base model, trained on chats of other people" \
    python3 src/demo/make_small_base.py --output-dir .demo/small_base
step "Stage 1: the export becomes training conversations" \
    bash preprocess_start.sh .demo/WhatsappChat.txt --imitate Noam "${where[@]}"
# A base this small needs a higher learning rate; for a base of billions of parameters keep the default. Three epochs
# are enough to see it learn.
step "Stage 2: the base learns to write like Noam" \
    python3 src/training/fine_tuning_model.py "${where[@]}" --learning-rate 1e-3 --epochs 3
printf '%s\n' "מה נשמע?" "בא לך לאכול פיצה?" "did you see the plan?" "נפגשים ביום שישי?" >.demo/what_ruth_types.txt
has_llama_cpp=$(python3 -c "from importlib.util import find_spec; print(find_spec('xllamacpp') is not None)")
if [ "$has_llama_cpp" = True ]; then
    step "The trained model as one file for llama.cpp; without an NVIDIA card, the chat uses it" \
        python3 src/chat/export_model.py "${model[@]}" --gguf q8_0
fi
step "Stage 3: a conversation (Ruth's lines come from a file)" \
    "${chat[@]}" <.demo/what_ruth_types.txt
if [ "$has_llama_cpp" = True ]; then
    step "Both engines of the chat, with this small model" \
        python3 src/demo/compare_engines.py python3 src/chat/chat_bot.py "${where[@]}" --seed 0 \
        --conversation-path .demo/both_engines.txt <.demo/what_ruth_types.txt
fi
step "The conversation log" tail -n "+$((num_lines_of_earlier_demos + 1))" .demo/conversation.txt
step "Result: tuned model against base" python3 src/demo/show_result.py .demo/saved_model/training_report.json
printf '\n=== Done in %s s\n' "$((SECONDS - started))"

if [ -t 0 ] && [ -t 1 ]; then
    printf '\n=== Your turn: write to Noam (exit to leave)\n$ %s\n' "${chat[*]}"
    exec "${chat[@]}"
fi

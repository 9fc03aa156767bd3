#!/usr/bin/env bash
# Every experiment script sources this file. It defines `launch`, and the folders that the scripts' paths start from.
#
# exp/finetuning/k400/NAME.sh runs as --job_name NAME and writes to outputs/finetuning/k400/NAME. Flags after the script's
# name override the script's: `bash exp/.../NAME.sh --epochs 1`. `--dry_run` prints the resolved run and the exact command.
#
# The first case that applies decides what starts the processes:
#   SUBMIT=1                             writes an sbatch file and submits it; with --dry_run it prints the file instead
#   under mpirun, torchrun or srun -n 8  nothing more: the launcher has already started each process of the run
#   inside a SLURM allocation            srun, over the whole allocation (salloc, or your own batch script)
#   PARTITION=name                       srun, which asks SLURM for the nodes and waits for them
#   several GPUs here, or GPUS above 1   torchrun
#   otherwise                            plain python
#
# Environment variables, all optional. Relative paths start from the folder where the script is called:
#   DATA_PATH      for --data_path: the folder of train.csv, val.csv and test.csv (pretraining: the list itself)
#   PREFIX         for --prefix: the folder of the videos that the lists name
#   MODEL_PATH     for --finetune: the weights to start from
#   TEACHER_PATH   for --clip_teacher_weights
#   OUTPUT_DIR     for --output_dir: the folder of this run alone
#   DATA_ROOT      folder of lists and teacher weights if the variables above are not set (default: data/ of the repository)
#   OUTPUT_ROOT    folder of all runs, where a recipe also looks for the weights of the previous one (default: outputs/)
#   PYTHON         interpreter (default: .venv of the repository, else python3); its folder comes first on PATH
#   GPUS           total number of processes, one per GPU (default: this machine's GPUs, else 1; on SLURM: the
#                  allocation's, else NODES x GPUS_PER_NODE, else the number that the recipe was made for)
#   MASTER_PORT    port where the processes meet (default: a free one)
# If SLURM starts the processes:
#   NODES          number of nodes (default: as few as GPUS needs)
#   GPUS_PER_NODE  GPUs per node (default: 8); 0, or the flag --device cpu, asks SLURM for none
#   CPUS_PER_TASK  CPU cores per process, on which --num_workers load data (default: 12 with a GPU, else SLURM's default)
#   TIME_LIMIT     time limit in SLURM's format (default: 24:00:00 for SUBMIT=1, else the partition's)
#   SIGNAL         warning before the limit, at which the run saves and is requeued (default: USR1@120, seconds)
#   ACCOUNT QOS    account that the job is charged to, and its quality of service
#   JOB_NAME       name of the job (default: the script's)
#   LOG_DIR        folder of the sbatch file and of the job's log, %j.out or %A_%a.out (default: slurm/ of the output folder)
#   REQUEUE        0: SLURM must not start the job again after a preemption or a lost node (default: it may)
#   ARRAY          indices of a job array, such as 0-3. `%a` in a flag then becomes the task's index, and each task gets
#                  its own output folder: ARRAY=0-3 SUBMIT=1 bash exp/.../NAME.sh --seed %a
#   SRUN_ARGS SBATCH_ARGS  further options, which come last and win: SBATCH_ARGS='--mem=0 --gres=gpu:a100:4'
set -euo pipefail

UMT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DATA_ROOT="${DATA_ROOT:-$UMT_ROOT/data}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$UMT_ROOT/outputs}"

_refuse() { # prints one sentence, and exits with the code for a mistake that the user can fix
    echo "umt: $*" >&2
    exit 2
}

_python() {
    if [[ -n ${PYTHON:-} ]]; then
        echo "$PYTHON"
    elif [[ -x $UMT_ROOT/.venv/bin/python ]]; then
        echo "$UMT_ROOT/.venv/bin/python"
    else
        echo python3
    fi
}

# Number of GPUs of this machine: from CUDA_VISIBLE_DEVICES if set, else from the device files. The driver's tools would
# take longer than the rest of a dry run.
_local_gpus() {
    local -a devices=()
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        [[ $CUDA_VISIBLE_DEVICES == -1 ]] || IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
    else
        shopt -s nullglob
        devices=(/dev/nvidia[0-9]*)
        shopt -u nullglob
    fi
    echo "${#devices[@]}"
}

_flag() { # _flag NAME FLAGS...: prints the last value of the flag, or nothing
    local name="--$1" value="" last="" word
    shift
    for word in "$@"; do
        [[ $last != "$name" ]] || value="$word"
        [[ $word != "$name="* ]] || value="${word#*=}"
        last="$word"
    done
    echo "$value"
}

_port_used() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a port that nothing listens on, below the range that the kernel uses for outgoing connections.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12768))
        if ! _port_used "$port"; then
            echo "$port"
            return
        fi
    done
    _refuse "No free port was found between 20000 and 32767. Name one: MASTER_PORT=45000."
}

_check_port() {
    [[ -z ${MASTER_PORT:-} ]] || ! _port_used "$MASTER_PORT" ||
        _refuse "MASTER_PORT ($MASTER_PORT) is in use on this machine. Unset it, and a free port is chosen."
}

_check_numbers() {
    local name
    for name in GPUS NODES CPUS_PER_TASK MASTER_PORT; do
        [[ ${!name:-1} =~ ^[1-9][0-9]*$ ]] ||
            _refuse "$name (${!name}) must be a whole number above 0. Unset it for the default."
    done
    ((${MASTER_PORT:-1} < 65536)) || _refuse "MASTER_PORT ($MASTER_PORT) must be below 65536. Unset it, and a free port is chosen."
    [[ ${GPUS_PER_NODE:-0} =~ ^[0-9]+$ ]] ||
        _refuse "GPUS_PER_NODE ($GPUS_PER_NODE) must be a whole number. A kind of GPU is said with SBATCH_ARGS or SRUN_ARGS: --gres=gpu:a100:8."
}

# Prints how to start the processes; see the head of this file.
_launcher() {
    if [[ ${SUBMIT:-0} != 0 ]]; then
        echo sbatch
    elif [[ (-n ${RANK:-} && -n ${WORLD_SIZE:-}) || -n ${OMPI_COMM_WORLD_RANK:-} || ${SLURM_STEP_NUM_TASKS:-1} != 1 ]]; then
        echo started
    elif [[ -n ${SLURM_JOB_ID:-} ]]; then
        echo step
    elif [[ -n ${PARTITION:-} ]]; then
        echo srun
    else
        echo here
    fi
}

# Sets tasks and nodes of a job that SLURM has not granted yet, from NODES, GPUS_PER_NODE, GPUS and the recipe ($1).
_shape_of_a_job() {
    local per="${GPUS_PER_NODE:-8}" below
    if [[ -n ${GPUS:-} ]]; then
        tasks="$GPUS"
    elif [[ -n ${NODES:-} ]]; then
        tasks=$((NODES * (per > 0 ? per : 1)))
    else
        tasks="${1:-1}"
    fi
    ((gpu_run)) || per="${GPUS_PER_NODE:-0}"
    nodes="${NODES:-$((per > 0 ? (tasks + per - 1) / per : 1))}"
    below=$((tasks / nodes * nodes))
    ((tasks == below)) ||
        _refuse "GPUS ($tasks) cannot be shared evenly by $nodes nodes. The nearest that works:$( ((below == 0)) || echo " GPUS=$below or")" \
            "GPUS=$((below + nodes)), or another NODES."
    [[ $per == 0 ]] || ((tasks / nodes <= per)) ||
        _refuse "GPUS ($tasks) on NODES ($nodes) is $((tasks / nodes)) a node, more than GPUS_PER_NODE ($per). Give NODES=$(((tasks + per - 1) / per)), or leave NODES out."
}

# Sets tasks and nodes of a step over the whole allocation of this shell: one process per GPU, whatever number of tasks per
# node the allocation asked for; without GPUs, the tasks of the allocation.
_shape_of_the_allocation() {
    local granted="${SLURM_GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-}}" below
    granted="${granted##*:}"
    nodes="${NODES:-${SLURM_JOB_NUM_NODES:-1}}"
    if [[ -n ${GPUS:-} ]]; then
        tasks="$GPUS"
    elif [[ ${GPUS_PER_NODE:-0} != 0 ]]; then
        tasks=$((nodes * GPUS_PER_NODE))
    elif ((gpu_run)) && [[ ${granted:-0} != 0 ]]; then
        tasks=$((nodes * granted))
    else
        tasks="${SLURM_NTASKS:-$nodes}"
    fi
    below=$((tasks / nodes * nodes))
    ((tasks == below)) ||
        _refuse "GPUS ($tasks) cannot be shared evenly by the $nodes nodes of this allocation. The nearest that works:$( ((below == 0)) || echo " GPUS=$below or") GPUS=$((below + nodes))."
    ((!gpu_run)) || [[ ${granted:-0} == 0 ]] || ((tasks / nodes <= granted)) ||
        _refuse "GPUS ($tasks) is $((tasks / nodes)) a node, but this allocation has $granted a node. Give GPUS=$((granted * nodes)), or ask SLURM for more."
}

# Checks that the partition and SLURM's programs exist.
_check_slurm() {
    local program="$1" why="$2" name known
    command -v "$program" >/dev/null ||
        _refuse "$why, but $program is not on PATH. Load SLURM's module, or unset it to run on this machine."
    [[ -n ${PARTITION:-} ]] && command -v sinfo >/dev/null || return 0
    known="$(sinfo --all --noheader --format %R 2>&1)" ||
        _refuse "SLURM does not answer: ${known##*: }. Is its controller up?"
    for name in ${PARTITION//,/ }; do
        grep -qxF "$name" <<<"$known" ||
            _refuse "PARTITION ($name) is not a partition of this cluster; there are: ${known//$'\n'/, }."
    done
}

_refused_by_slurm() { # _refused_by_slurm OUTPUT: exits with SLURM's reason and with what was requested
    local reason
    reason="$(grep -iE 'error|fail' <<<"$1" | grep -v 'No error' | tail -n 1)" || reason="$1"
    _refuse "SLURM refuses the job: ${reason##*: }. It was asked for $tasks processes on $nodes node(s)$( ((gpus_a_node == 0)) || echo " with $gpus_a_node GPU(s) each")$([[ -z $cpus ]] || echo ", $cpus CPU core(s) a process")${TIME_LIMIT:+, for $TIME_LIMIT}: change NODES, GPUS, GPUS_PER_NODE, CPUS_PER_TASK, TIME_LIMIT, ACCOUNT or QOS."
}

# Prints the sbatch file. SLURM's signal goes to the processes of the step, not to this shell, which srun replaces. A
# requeued job runs the same lines again and appends to its log.
_sbatch_file() { # _sbatch_file SCRIPT LOG_DIR NAME COMMAND...
    local script="$1" logs="$2" name="$3" log="%j" words
    shift 3
    [[ -z ${ARRAY:-} ]] || log="%A_%a"
    printf '#!/usr/bin/env bash\n# Written by %s. It can be submitted again as it is, with sbatch.\n' "$script"
    printf '#SBATCH %s\n' --job-name="\"$name\"" --nodes="$nodes" --ntasks="$tasks" --ntasks-per-node="$((tasks / nodes))"
    ((gpus_a_node == 0)) || printf '#SBATCH --gres=gpu:%s\n' "$gpus_a_node"
    [[ -z $cpus ]] || printf '#SBATCH --cpus-per-task=%s\n' "$cpus"
    printf '#SBATCH %s\n' --time="${TIME_LIMIT:-24:00:00}" --signal="${SIGNAL:-USR1@120}" --open-mode=append
    if [[ ${REQUEUE:-1} != 0 ]]; then echo "#SBATCH --requeue"; else echo "#SBATCH --no-requeue"; fi
    printf '#SBATCH --output="%s"\n' "$logs/$log.out"
    [[ -z ${PARTITION:-} ]] || printf '#SBATCH --partition=%s\n' "$PARTITION"
    [[ -z ${ACCOUNT:-} ]] || printf '#SBATCH --account=%s\n' "$ACCOUNT"
    [[ -z ${QOS:-} ]] || printf '#SBATCH --qos=%s\n' "$QOS"
    [[ -z ${ARRAY:-} ]] || printf '#SBATCH --array=%s\n' "$ARRAY"
    [[ -z ${SBATCH_ARGS:-} ]] || printf '#SBATCH %s\n' "$SBATCH_ARGS"
    # shellcheck disable=SC2016  # expanded by the job's shell, on the node where the processes meet
    printf 'source %q\ncd %q\nexport PATH=%q:"$PATH" PYTHONPATH=%q\n' \
        "$UMT_ROOT/scripts/launch.sh" "$PWD" "${PATH%%:*}" "$PYTHONPATH"
    # shellcheck disable=SC2016
    printf 'export MASTER_PORT="${MASTER_PORT:-$(free_port)}"\n'
    words="$(printf ' %q' "$@")"
    # shellcheck disable=SC2016
    [[ -z ${ARRAY:-} ]] || words="${words//%a/'${SLURM_ARRAY_TASK_ID}'}"
    printf 'exec%s\n' "$words"
}

# launch pretrain|finetune FLAGS...: starts the run in place of this shell, so that signals reach it.
launch() {
    local task="$1" script path name python word last="" dry="" how tasks=1 nodes=1 gpus_a_node=0 gpu_run=1 cpus="" local_gpus
    local output logs file reply
    local -a flags=() start=() wide=() words=()
    shift
    script="$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)/$(basename "${BASH_SOURCE[1]}")"
    path="${script#"$UMT_ROOT"/exp/}"
    path="${path%.sh}"
    name="$(basename "$path")"
    [[ $path != /* ]] || path="$name"
    python="$(_python)"
    _check_numbers
    # The folder of the code comes first, so that the experiments of a checkout run the code of that checkout. The
    # interpreter's folder comes first on PATH, because DeepSpeed compiles an op at its first use and looks for ninja there.
    export PYTHONPATH="$UMT_ROOT${PYTHONPATH:+:$PYTHONPATH}"
    [[ $python != */* ]] || PATH="$(cd "$(dirname "$python")" && pwd):$PATH"

    output="${OUTPUT_DIR:-$OUTPUT_ROOT/$path}"
    logs="${LOG_DIR:-${output//%a/all}/slurm}"
    how="$(_launcher)"
    [[ $how != sbatch || -z ${ARRAY:-} || $output == *%a* ]] || output="$output/%a"
    flags=(--job_name "$name" --output_dir "$output")
    for word in "$@"; do
        if [[ $word == --dry_run || $word == --dry_run=* ]]; then
            dry="${word#--dry_run=}"
        elif [[ $last == --dry_run && $word =~ ^([Tt]rue|TRUE|1|yes|on|[Ff]alse|FALSE|0|no|off)$ ]]; then
            dry="$word"
        else
            flags+=("$word")
        fi
        last="$word"
    done
    [[ ! $dry =~ ^([Ff]alse|FALSE|0|no|off)$ ]] || dry=""
    [[ $(_flag device "${flags[@]}") != cpu && ${GPUS_PER_NODE:-} != 0 ]] || gpu_run=0

    start=("$python" -m umt "$task" "${flags[@]}")
    case $how in
        sbatch | srun)
            _shape_of_a_job "$(_flag recipe_gpus "${flags[@]}")"
            ((!gpu_run)) || gpus_a_node=$((tasks / nodes))
            cpus="${CPUS_PER_TASK:-$( ((!gpu_run)) || echo 12)}"
            ;;
        step)
            _shape_of_the_allocation
            cpus="${CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-}}"
            ;;
        here)
            local_gpus="$(_local_gpus)"
            tasks="${GPUS:-$((local_gpus > 1 ? local_gpus : 1))}"
            ;;
    esac
    case $how in
        sbatch | srun | step)
            # Otherwise the other processes would wait for one that died until the time limit.
            wide=(srun --kill-on-bad-exit=1 --nodes="$nodes" --ntasks="$tasks" --ntasks-per-node="$((tasks / nodes))")
            # Since SLURM 22.05, srun no longer inherits this from the job.
            [[ -z $cpus ]] || wide+=(--cpus-per-task="$cpus")
            if [[ $how == srun ]]; then
                wide+=(--job-name="${JOB_NAME:-$name}" --partition="$PARTITION")
                ((gpus_a_node == 0)) || wide+=(--gres="gpu:$gpus_a_node")
                [[ -z ${TIME_LIMIT:-} ]] || wide+=(--time="$TIME_LIMIT" --signal="${SIGNAL:-USR1@120}")
                [[ -z ${ACCOUNT:-} ]] || wide+=(--account="$ACCOUNT")
                [[ -z ${QOS:-} ]] || wide+=(--qos="$QOS")
            elif [[ $how == step && -n ${SLURM_STEP_ID:-} ]]; then
                wide+=(--overlap) # the shell is itself a step (srun --pty bash) and holds the resources that the run needs
            fi
            read -ra words <<<"${SRUN_ARGS:-}"
            wide+=("${words[@]}")
            start=("${wide[@]}" "${start[@]}")
            ;;
        here)
            if ((tasks > 1)); then
                words=(--standalone) # chooses a free port by itself
                [[ -z ${MASTER_PORT:-} ]] || words=(--master_addr 127.0.0.1 --master_port "$MASTER_PORT")
                start=("$python" -m torch.distributed.run "${words[@]}" --nproc_per_node "$tasks" -m umt "$task" "${flags[@]}")
            fi
            ;;
    esac

    # One task of a job array stands for all: the flags are checked and shown with its index.
    [[ $how != sbatch || -z ${ARRAY:-} ]] || flags=("${flags[@]//%a/${ARRAY%%[^0-9]*}}")
    # The variables of a launcher around this shell do not describe the processes that are started here.
    [[ $how == started ]] || unset RANK WORLD_SIZE OMPI_COMM_WORLD_SIZE SLURM_STEP_NUM_TASKS
    [[ $how == started ]] || export GPUS="$tasks"
    if [[ -n $dry ]]; then
        UMT_LAUNCH_COMMAND="$(printf '%q ' "${start[@]}")" "$python" -m umt "$task" "${flags[@]}" --dry_run || exit
        [[ $how != sbatch ]] || _sbatch_file "$script" "$logs" "${JOB_NAME:-$name}" "${start[@]}"
        exit
    fi

    case $how in
        sbatch) _check_slurm sbatch "SUBMIT (${SUBMIT:-}) is set" ;;
        srun) _check_slurm srun "PARTITION (${PARTITION:-}) is set" ;;
        step)
            PARTITION="" _check_slurm srun "SLURM_JOB_ID ($SLURM_JOB_ID) says that this is a SLURM allocation"
            [[ -z ${SLURMD_NODENAME:-} ]] || _check_port # on the first node, where the processes will meet
            ;;
        here)
            ((tasks == 1)) || _check_port
            # Without any GPU, several processes are a run on the CPU, unless --device cuda asked for GPUs.
            ((tasks == 1 || !gpu_run || tasks <= local_gpus)) || [[ $local_gpus == 0 && $(_flag device "${flags[@]}") != cuda* ]] ||
                _refuse "GPUS ($tasks) is more than the $local_gpus GPU(s) of this machine. Lower it, or give --device cpu."
            ;;
    esac
    # Check the flags in one process first: a mistake is then one sentence instead of a traceback of the launcher.
    if [[ $how != started && $how/$tasks != here/1 ]]; then
        "$python" -m umt.run "$task" "${flags[@]}"
    fi
    case $how in
        sbatch)
            mkdir -p "$logs"
            file="$logs/${JOB_NAME:-$name}.sbatch"
            _sbatch_file "$script" "$(cd "$logs" && pwd)" "${JOB_NAME:-$name}" "${start[@]}" >"$file"
            # Without this check, many SLURM installations accept a job that can never start. Nodes that are busy or down
            # may come back.
            reply="$(sbatch --test-only "$file" 2>&1)" || [[ $reply =~ busy|down|drained|reserved ]] || _refused_by_slurm "$reply"
            reply="$(sbatch "$file" 2>&1)" || _refused_by_slurm "$reply"
            echo "$reply"
            echo "File: $file"
            exit 0
            ;;
        srun)
            reply="$("${wide[@]}" --test-only true 2>&1)" || [[ $reply =~ busy|down|drained|reserved ]] || _refused_by_slurm "$reply"
            ;;
        # An empty step: it checks that every node answers and that the allocation has what the run needs.
        step) reply="$("${wide[@]}" --overlap true 2>&1)" || _refused_by_slurm "$reply" ;;
    esac
    [[ $how != srun && $how != step ]] || export MASTER_PORT="${MASTER_PORT:-$(free_port)}"
    exec "${start[@]}"
}

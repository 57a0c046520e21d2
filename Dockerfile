# docker build -t zoo .                           the CPU build of torch
# docker build -t zoo --build-arg DEVICE=cuda .   the CUDA build; docker run --gpus all ...
FROM python:3.11-slim

ARG DEVICE=cpu

# g++ compiles the neurons' CPU kernels and Triton's launchers
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /zoo
COPY requirements.txt constraints.txt ./
# torch and torchvision of one build: a CPU torch beside the registry's torchvision can't be imported
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir torch torchvision -c constraints.txt --index-url https://download.pytorch.org/whl/cpu; \
    elif [ "$DEVICE" != cuda ]; then \
        echo "DEVICE is cpu or cuda, not $DEVICE" && exit 1; \
    fi && pip install --no-cache-dir -r requirements.txt -c constraints.txt

COPY . .

ENV OMP_WAIT_POLICY=PASSIVE
# exec form: docker stop's SIGTERM reaches the run, which then leaves a checkpoint
ENTRYPOINT ["python", "main.py"]
CMD ["--model", "spikformer", "--attention", "statten"]

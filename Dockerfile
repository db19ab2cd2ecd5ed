# docker build -t dreamerjax .                                  CPU
# docker build -t dreamerjax --build-arg EXTRAS=cuda .          NVIDIA; run it with --gpus all
# docker run --rm -v "$PWD/runs:/work/runs" dreamerjax --env cartpole
FROM python:3.12-slim
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dreamerjax dreamerjax
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"
WORKDIR /work
ENTRYPOINT ["dreamerjax"]
CMD ["--env", "cartpole"]

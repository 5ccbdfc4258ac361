#   docker build -t circuit-atlas . && docker run --rm -v "$PWD/results:/atlas/results" circuit-atlas --cores 2
# With Apptainer, run it from a clone, since images are read-only:
#   apptainer build atlas.sif docker-daemon://circuit-atlas:latest
#   apptainer exec atlas.sif snakemake --cores 2
FROM python:3.11-slim

RUN useradd --create-home atlas && mkdir /atlas && chown atlas /atlas
WORKDIR /atlas
COPY --chown=atlas envs/requirements.txt envs/constraints.txt envs/
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -r envs/requirements.txt -c envs/constraints.txt
COPY --chown=atlas . .
USER atlas
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]

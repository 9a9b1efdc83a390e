FROM python:3.12-slim AS build
RUN python -m venv /opt/visits
ENV PATH=/opt/visits/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# the libraries are a layer of their own, so that a change of the code does not fetch them again
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY dataflow dataflow
COPY producer producer
RUN pip install --no-deps .

FROM python:3.12-slim
# a volume that is mounted here takes this owner when it is first used
RUN useradd --system --uid 10001 visits && install -d -o visits -g visits /var/lib/visits /var/lib/visits/recovery
COPY --from=build /opt/visits /opt/visits
ENV PATH=/opt/visits/bin:$PATH PYTHONUNBUFFERED=1
USER visits
WORKDIR /var/lib/visits
CMD ["python", "-m", "dataflow"]

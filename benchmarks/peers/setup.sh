#!/usr/bin/env bash
# One virtual environment per peer under $PEERS_VENVS, newest versions.
#   PEERS_PYTHON=<python 3.12+> ./setup.sh [name ...]        (windlass itself: the environment of `make`)
set -u
here=$(cd "$(dirname "$0")" && pwd)
V=${PEERS_VENVS:-$here/.venvs}; P=${PEERS_PYTHON:-python3}; mkdir -p "$V"
want="$*"; failed=0
mk() { n=$1; shift; case " $want " in *" $n "*|"  ") ;; *) return;; esac
  [ -x "$V/$n/bin/python" ] || "$here/../../scripts/venv" "$P" "$V/$n" || { failed=1; return; }
  "$V/$n/bin/python" -m pip --disable-pip-version-check -q install --upgrade "$@" && echo "ok $n" || { echo "FAIL $n"; failed=1; }; }
mk huey huey
mk celery 'celery[redis]' hiredis
mk dramatiq 'dramatiq[redis,rabbitmq]' hiredis
mk rq rq hiredis
mk arq arq uvloop
mk taskiq taskiq taskiq-redis taskiq-aio-pika uvloop orjson hiredis
mk saq 'saq[redis,postgres,hiredis]' 'psycopg[binary]' uvloop
mk streaq streaq uvloop
mk ardiq ardiq
mk awa awa-pg
mk procrastinate procrastinate 'psycopg[binary,pool]'
mk pgqueuer 'pgqueuer[asyncpg,cli]' uvloop
mk oban oban
mk dbos dbos pysqlite3-binary uvloop
mk absurd absurd-sdk uvloop
mk chancy chancy 'psycopg[binary,pool]' uvloop
mk djtasks django-tasks-db django 'psycopg[binary,pool]'
mk aps 'apscheduler==4.0.0a6' 'sqlalchemy[asyncio]<2.1' 'anyio==4.9.0' asyncpg sniffio
mk raw uvloop orjson msgspec redis hiredis 'psycopg[binary]' asyncpg pydantic py-spy
exit $failed

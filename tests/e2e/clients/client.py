"""The official Python client against a cluster: `client.py KUBECONFIG NAMESPACE`. Ends with "ok", or with the first thing that is not so."""

import json
import sys
import threading
import time

import websocket
import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

kubeconfig, namespace = sys.argv[1:3]
config.load_kube_config(kubeconfig)
core, apps, api = client.CoreV1Api(), client.AppsV1Api(), client.ApiClient()


def refused(status, reason, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert (error.status, error.reason) == (status, reason) or error.status == status, error
        assert f'"reason":"{reason}"' in error.body, error.body
        return error
    raise AssertionError(f"{call.__name__}{arguments} was not refused")


def until(what, test):
    end = time.monotonic() + 90
    while time.monotonic() < end:
        found = test()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for {what}")


def objects():
    made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "py", "labels": {"from": "python"}}, "data": {"a": "1"}})
    refused(409, "AlreadyExists", core.create_namespaced_config_map, namespace, {"metadata": {"name": "py"}})
    refused(422, "Invalid", core.create_namespaced_config_map, namespace, {"metadata": {"name": "Not A Name"}})
    refused(404, "NotFound", core.read_namespaced_config_map, "nobody", namespace)
    patched = core.patch_namespaced_config_map("py", namespace, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}, patched.data
    refused(409, "Conflict", core.replace_namespaced_config_map, "py", namespace, made)
    patched.data = {"c": "3"}
    assert core.replace_namespaced_config_map("py", namespace, patched).data == {"c": "3"}
    assert [one.metadata.name for one in core.list_namespaced_config_map(namespace, label_selector="from=python").items] == ["py"]
    page = core.list_namespaced_config_map(namespace, limit=1)
    rest = core.list_namespaced_config_map(namespace, limit=10, _continue=page.metadata._continue)
    names = {one.metadata.name for one in page.items + rest.items}
    assert names >= {"py", "kube-root-ca.crt"}, names


def watches():
    """A change is seen by a watch that began at the revision of a list, and in order."""
    revision = core.list_namespaced_config_map(namespace).metadata.resource_version
    seen, watcher = [], watch.Watch()

    def read():
        for event in watcher.stream(core.list_namespaced_config_map, namespace, resource_version=revision, timeout_seconds=60):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watcher.stop()

    reader = threading.Thread(target=read)
    reader.start()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "seen"}})
    core.patch_namespaced_config_map("seen", namespace, {"data": {"x": "y"}})
    core.delete_namespaced_config_map("seen", namespace)
    reader.join(60)
    assert seen == [("ADDED", "seen"), ("MODIFIED", "seen"), ("DELETED", "seen")], seen


def server_side_apply():
    resources = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": namespace}, "data": {"mine": "1"}}
    one = resources.server_side_apply(body=wanted, field_manager="python")
    assert one.metadata.managedFields[0].manager == "python", one
    other = {**wanted, "data": {"mine": "2"}}
    try:
        resources.server_side_apply(body=other, field_manager="someone")
        raise AssertionError("the conflict was not found")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with \\"python\\"' in error.body.decode(), error.body
    forced = resources.server_side_apply(body=other, field_manager="someone", force_conflicts=True)
    assert forced.data.mine == "2", forced


def pods():
    manifest = """
    apiVersion: v1
    kind: Pod
    metadata: {name: py}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: "registry.slipway.test/busybox:1", command: [sleep, "1000"]}
      - {name: web, image: "registry.slipway.test/web:1", ports: [{containerPort: 8080}]}
    """
    utils.create_from_yaml(api, yaml_objects=[yaml.safe_load(manifest)], namespace=namespace)
    until("the pod", lambda: core.read_namespaced_pod_status("py", namespace).status.phase == "Running")
    command = ["sh", "-c", "echo to-out; echo to-err >&2; read line; echo got $line; exit 3"]
    options = {"container": "main", "stdin": True, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
    session = stream(core.connect_get_namespaced_pod_exec, "py", namespace, command=command, **options)
    session.write_stdin("a line\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "to-out\ngot a line\n"
    assert session.read_stderr() == "to-err\n"
    assert session.returncode == 3, session.returncode
    tunnel = portforward(core.connect_get_namespaced_pod_portforward, "py", namespace, ports="8080")
    socket = tunnel.socket(8080)
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
    answer = b""
    while part := socket.recv(4096):
        answer += part
    assert answer.startswith(b"HTTP/1.1 200") or answer.startswith(b"HTTP/1.0 200"), answer
    assert tunnel.error(8080) is None, tunnel.error(8080)
    assert isinstance(core.read_namespaced_pod_log("py", namespace, container="web", tail_lines=5), str)
    core.delete_namespaced_pod("py", namespace, grace_period_seconds=0)


def websockets():
    """Conformance: "Pods should support retrieving logs from the container over websockets" and its like for exec; watches too."""
    settings = api.configuration
    secrets = {"ca_certs": settings.ssl_ca_cert, "certfile": settings.cert_file, "keyfile": settings.key_file}

    def connect(path, protocols=None):
        return websocket.create_connection(settings.host.replace("https", "wss") + path, sslopt=secrets, subprotocols=protocols, timeout=60)

    command = ["sh", "-c", "echo to-log; sleep 1000"]
    container = {"name": "main", "image": "registry.slipway.test/busybox:1", "command": command}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "ws"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
    until("the pod", lambda: core.read_namespaced_pod_status("ws", namespace).status.phase == "Running")
    pod = f"/api/v1/namespaces/{namespace}/pods/ws"
    for protocol, wanted in [("binary.k8s.io", b"to-log\n"), ("base64.binary.k8s.io", "dG8tbG9nCg==")]:
        log = connect(f"{pod}/log?container=main", [protocol])
        assert log.getsubprotocol() == protocol
        assert log.recv() == wanted
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"]:
        session = connect(f"{pod}/exec?container=main&command=cat&command=/etc/hostname&stdout=1&stderr=1", [protocol])
        said = {}
        while message := session.recv():
            said[message[0]] = said.get(message[0], b"") + message[1:]
        assert session.getsubprotocol() == protocol and said[1] == b"ws\n", (protocol, said)
        assert b'"status":"Success"' in said[3], (protocol, said)
    revision = core.list_namespaced_config_map(namespace).metadata.resource_version
    events = connect(f"/api/v1/namespaces/{namespace}/configmaps?watch=true&resourceVersion={revision}")
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "over-a-websocket"}})
    event = json.loads(events.recv())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "over-a-websocket"), event
    events.close()
    core.delete_namespaced_pod("ws", namespace, grace_period_seconds=0)


def workloads():
    template = {"metadata": {"labels": {"app": "py"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "registry.slipway.test/web:1"}]}}
    apps.create_namespaced_deployment(
        namespace, {"metadata": {"name": "py"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "py"}}, "template": template}}
    )
    until("the deployment", lambda: apps.read_namespaced_deployment("py", namespace).status.available_replicas == 2)
    apps.patch_namespaced_deployment_scale("py", namespace, {"spec": {"replicas": 1}})
    until("one replica", lambda: apps.read_namespaced_deployment("py", namespace).status.replicas == 1)
    apps.delete_namespaced_deployment("py", namespace, propagation_policy="Foreground")
    until("its end", lambda: not apps.list_namespaced_deployment(namespace).items)


def access():
    allowed = client.AuthorizationV1Api().create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"namespace": namespace, "verb": "delete", "resource": "pods"}}}
    )
    assert allowed.status.allowed is True
    assert client.VersionApi().get_code().major == "1"


for part in [objects, watches, server_side_apply, pods, websockets, workloads, access]:
    part()
    print(part.__name__, flush=True)
print("ok")

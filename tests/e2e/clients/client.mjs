// The official JavaScript client against a cluster: `client.mjs KUBECONFIG NAMESPACE`. Ends with "ok", or with the first thing that is not so.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough, Readable } from 'node:stream';

const k8s = createRequire(`${process.env.CLIENT_MODULES}/`)('@kubernetes/client-node');
const [kubeconfig, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

async function refused(code, reason, promise) {
  const error = await promise.then(() => null, (error) => error);
  assert.ok(error, `expected ${code} ${reason}`);
  assert.equal(error.code, code);
  assert.equal(JSON.parse(error.body).reason, reason);
}

async function until(what, test) {
  for (const end = Date.now() + 90_000; Date.now() < end; ) {
    const found = await test();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`waited in vain for ${what}`);
}

async function collected(stream) {
  let text = '';
  for await (const part of stream) text += part;
  return text;
}

async function configMaps() {
  const body = { metadata: { name: 'js', labels: { from: 'node' } }, data: { a: '1' } };
  const made = await core.createNamespacedConfigMap({ namespace, body });
  assert.ok(made.metadata.uid);
  await refused(409, 'AlreadyExists', core.createNamespacedConfigMap({ namespace, body }));
  await refused(404, 'NotFound', core.readNamespacedConfigMap({ namespace, name: 'nobody' }));
  const patched = await core.patchNamespacedConfigMap(
    { namespace, name: 'js', body: { data: { b: '2' } } },
    k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.StrategicMergePatch),
  );
  assert.deepEqual(patched.data, { a: '1', b: '2' });
  await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ namespace, name: 'js', body: made }));
  const applied = await objects.patch(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'js-applied', namespace }, data: { x: 'y' } },
    undefined, undefined, 'node', true, k8s.PatchStrategy.ServerSideApply,
  );
  assert.equal(applied.metadata.managedFields[0].operation, 'Apply');
  const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'from=node' });
  assert.deepEqual(list.items.map((one) => one.metadata.name), ['js']);
}

async function informer() {
  const seen = [];
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () => core.listNamespacedConfigMap({ namespace }));
  for (const event of ['add', 'update', 'delete']) informer.on(event, (one) => one.metadata.name === 'informed' && seen.push(event));
  informer.on('error', (error) => seen.push(error));
  await informer.start();
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'informed' } } });
  await until('the addition', () => seen.includes('add'));
  await core.deleteNamespacedConfigMap({ namespace, name: 'informed' });
  await until('the deletion', () => seen.includes('delete'));
  assert.deepEqual(seen, ['add', 'delete']);
  await informer.stop();
}

async function pods() {
  const container = { name: 'main', image: 'registry.slipway.test/busybox:1', command: ['sh', '-c', 'echo started; sleep 1000'] };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: 'js' }, spec: { terminationGracePeriodSeconds: 0, containers: [container] } } });
  await until('the pod', async () => (await core.readNamespacedPod({ namespace, name: 'js' })).status.phase === 'Running');
  const [out, err] = [new PassThrough(), new PassThrough()];
  const command = ['sh', '-c', 'echo to-out; echo to-err >&2; read line; echo got $line; exit 3'];
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config).exec(namespace, 'js', 'main', command, out, err, Readable.from(['a line\n']), false, resolve).catch(reject);
  });
  out.end();
  err.end();
  assert.equal(await collected(out), 'to-out\ngot a line\n');
  assert.equal(await collected(err), 'to-err\n');
  assert.equal(status.details.causes[0].message, '3', JSON.stringify(status));
  const log = new PassThrough();
  await new k8s.Log(config).log(namespace, 'js', 'main', log, { tailLines: 1 });
  assert.equal(await collected(log), 'started\n');
  await core.deleteNamespacedPod({ namespace, name: 'js', gracePeriodSeconds: 0 });
}

for (const part of [configMaps, informer, pods]) {
  await part();
  console.log(part.name);
}
console.log('ok');
process.exit(0);

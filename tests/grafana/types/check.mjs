// Checks the committed dashboards against the types of @grafana/schema, and that what breaks them is found.
// Run by `make dashboards`. Exit code 0: all three fit. Each dashboard becomes a literal in generated.ts, so that the
// compiler sees its very words and numbers, and a field that the types do not have is an error too.
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const folder = join(here, '..', '..', '..', 'grafana', 'dashboards');
const names = readdirSync(folder).filter((name) => name.endsWith('.json')).sort();
const pages = Object.fromEntries(names.map((name) => [name, JSON.parse(readFileSync(join(folder, name), 'utf8'))]));
const first = (page, type) => page.panels.find((panel) => panel.type === type);

const BREAKS = [
  (page) => (page.editable = 'no'),
  (page) => (page.schemaVersion = '42'),
  (page) => (page.colour = 'blue'),
  (page) => (page.templating.list[0].refresh = 7),
  (page) => delete page.annotations.list[1].enable,
  (page) => (first(page, 'stat').options.graphMode = 'pie'),
  (page) => (first(page, 'stat').fieldConfig.defaults.unit = 1),
  (page) => (first(page, 'timeseries').options.legend.placement = 'left'),
  (page) => (first(page, 'timeseries').fieldConfig.defaults.custom.drawStyle = 'lines'),
  (page) => (first(page, 'timeseries').fieldConfig.defaults.custom.lineColour = 'red'),
  (page) => delete first(page, 'timeseries').targets[0].expr,
  (page) => delete first(page, 'state-timeline').options.rowHeight,
  (page) => (first(page, 'bargauge').options.displayMode = 'flat'),
];

const lines = ["import type { Page } from './page';"];
names.forEach((name, at) => lines.push(`export const page${at} = ${JSON.stringify(pages[name])} satisfies Page; // ${name}`));
BREAKS.forEach((spoil, at) => {
  const page = structuredClone(pages['health.json']);
  spoil(page);
  lines.push(`// @ts-expect-error ${spoil}`, `export const broken${at} = ${JSON.stringify(page)} satisfies Page;`);
});
writeFileSync(join(here, 'generated.ts'), `${lines.join('\n')}\n`);

const tsc = join(here, 'node_modules', 'typescript', 'bin', 'tsc');
const options = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'esnext', '--moduleResolution', 'bundler', '--pretty', 'false'];
try {
  execFileSync(process.execPath, [tsc, ...options, join(here, 'generated.ts')], { stdio: 'pipe', encoding: 'utf8' });
} catch (error) {
  const kept = String(error.stdout).split('\n').map((line) => line.slice(0, 600)).slice(0, 40);
  console.error(kept.join('\n'));
  process.exit(1);
}
console.log(`${names.length} dashboards fit the types of @grafana/schema, ${BREAKS.length} broken ones do not`);

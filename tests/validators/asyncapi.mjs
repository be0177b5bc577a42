// Reads AsyncAPI documents, [document, …], writes what the official parser finds wrong with each:
// [[[severity, path, message], …], …]. Severity 0 is an error; a document with one is not valid.

import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const results = [];
for (const text of JSON.parse(readFileSync(0, 'utf8'))) {
  const { document, diagnostics } = await new Parser().parse(JSON.stringify(text));
  const found = diagnostics.map(({ severity, path, message }) => [severity, path.join('.'), message]);
  if (!document && !found.some(([severity]) => severity === 0)) found.push([0, '', 'no document']);
  results.push(found);
}
process.stdout.write(JSON.stringify(results));

'use strict';
// The page asks the gateway like any client; what it shows of the layers is in the fields of the answers.

const $ = (id) => document.getElementById(id);
const money = (cents) => `${(cents / 100).toFixed(2)} €`;
const ms = (us) => us == null ? '–' : us < 1000 ? `${us} µs` : `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms`;
let storeName = 'memory';
let catalogue = new Map();
let cart = { version: 0, items: {} };

// An element, with attributes and children.
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// Which layer made the answer what it is, in words.
function explain(response, what, personal) {
  const status = response.headers.get('cache-status') ?? '';
  const detail = /detail="?([\w-]+)/.exec(status)?.[1];
  if (response.status === 429) return ['LIMITED', 'RateLimitLayer', 'too many requests: refused before anything was asked'];
  if (response.status >= 500) return ['FAILED', 'the service', 'it does not answer, and the store has nothing to stand in'];
  switch (what) {
    case 'HIT': return [what, 'CacheLayer', 'from the store; no service was asked'];
    case 'COALESCED': return [what, 'CoalesceLayer', 'shared the request of somebody who asked at the same moment'];
    case 'STALE': return detail === 'revalidating'
      ? [what, 'SwrLayer', 'stale, but at once; it is fetched anew in the background']
      : [what, 'CacheLayer', `the service failed (${detail}); what was stored stands in`];
    case 'REVALIDATED': return [what, 'CacheLayer', 'the service says that it has not changed'];
    case 'MISS': return status.includes('stored')
      ? [what, 'CacheLayer', 'the service was asked; its answer is stored now']
      : [what, personal ?? 'CacheLayer', `the service was asked; not stored${detail ? `: ${detail}` : ''}`];
    case 'BYPASS': return [what, personal ?? 'TagInvalidationLayer', 'goes through: it changes something'];
    default: return ['BYPASS', personal ?? 'the gateway', ''];
  }
}

// One line in "What the gateway did".
function log(title, what, layer, text, facts) {
  const line = el('li', { class: what },
    el('div', {}, el('span', { class: 'badge' }, what), ' ', el('code', {}, title)),
    el('div', {}, el('b', {}, layer), text ? `: ${text}` : ''),
    facts.length ? el('div', { class: 'facts' }, facts.join(' · ')) : null);
  line.dataset.what = what;
  line.dataset.title = title;
  $('log').prepend(line);
  // Where the list is below the shop, its newest line is at the foot of the screen.
  $('latest').className = `latest ${what}`;
  $('latest').replaceChildren(el('span', { class: 'badge' }, what), ` ${layer}${text ? `: ${text}` : ''}`);
  $('latest').hidden = false;
  while ($('log').children.length > 40) $('log').lastChild.remove();
}

// Asks the gateway, and says what it did.
async function ask(method, path, { body, personal, quiet } = {}) {
  const start = performance.now();
  const init = { method, headers: {} };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers['content-type'] = 'application/json';
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    log(`${method} ${path}`, 'FAILED', 'the browser', 'the storefront does not answer', []);
    throw error;
  }
  const text = await response.text();
  const took = performance.now() - start;
  const limit = /"visitor";r=(\d+)/.exec(response.headers.get('ratelimit') ?? '')?.[1];
  if (limit) $('n-limit').textContent = limit;
  if (!quiet) {
    const [what, layer, words] = explain(response, response.headers.get('x-gateway'), personal);
    const facts = [];
    const gateway = /dur=([\d.]+)/.exec(response.headers.get('server-timing') ?? '')?.[1];
    if (gateway) facts.push(`${(+gateway).toFixed(gateway < 10 ? 2 : 0)} ms in the gateway`);
    facts.push(`${took.toFixed(0)} ms in all`);
    const age = response.headers.get('age');
    if (age !== null) facts.push(`age ${age} s`);
    const calls = response.headers.get('x-store-calls');
    if (calls !== null) facts.push(storeName === 'memory' ? `0 round trips (${calls} look-ups in memory)` : `${calls} round trip${calls === '1' ? '' : 's'} to ${storeName}`);
    log(`${method} ${path}`, what, layer, words, facts);
  }
  let data = null;
  try { data = text ? JSON.parse(text) : null; } catch { data = text; }
  return { ok: response.ok, status: response.status, data, headers: response.headers };
}

// Products.

function show(products) {
  for (const product of products) catalogue.set(String(product.id), product);
  $('grid').replaceChildren(...products.map((product) => el('li', {},
    el('button', { class: 'look', type: 'button', 'aria-label': `Look at ${product.name}`, onclick: () => ask('GET', `/api/products/${product.id}`) },
      el('img', { src: `/images/${product.id}.svg`, alt: '', loading: 'lazy', width: 200, height: 200 })),
    el('div', { class: 'text' },
      el('b', {}, product.name), el('small', {}, product.text),
      el('div', { class: 'buy-line' }, el('span', {}, money(product.price)),
        el('button', { type: 'button', 'aria-label': `Add ${product.name} to the cart`, onclick: () => add(product) }, 'Add'))))));
  if (products.length === 0) $('grid').append(el('li', { class: 'text' }, 'Nothing found.'));
}

async function products() {
  const answer = await ask('GET', '/api/products');
  if (answer.ok) show(answer.data);
  else $('grid').replaceChildren(el('li', {}, 'The products service does not answer. Bring it back in “Services”.'));
}

$('search').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return products();
  const answer = await ask('POST', '/api/search', { body: { text } });
  if (answer.ok) show(answer.data);
});

// Cart, orders, profile.

async function add(product) {
  await ask('POST', `/api/cart/${product.id}`, { personal: 'SessionLayer' });
  await loadCart(true);
}

async function loadCart(quiet) {
  const answer = await ask('GET', '/api/cart', { personal: 'SessionLayer', quiet });
  if (!answer.ok) return;
  cart = answer.data;
  const items = Object.entries(cart.items);
  $('cart-count').textContent = items.reduce((sum, [, count]) => sum + count, 0);
  $('cart-items').replaceChildren(...items.map(([sku, count]) => {
    const product = catalogue.get(sku);
    return el('li', {}, el('span', {}, `${count} × ${product?.name ?? sku}`), el('span', {}, money((product?.price ?? 0) * count)),
      el('button', { type: 'button', 'aria-label': `Remove ${product?.name ?? sku}`, onclick: async () => {
        await ask('DELETE', `/api/cart/${sku}`, { personal: 'SessionLayer' });
        await loadCart(true);
      } }, 'Remove'));
  }));
  if (items.length === 0) $('cart-items').append(el('li', {}, 'There is nothing in it.'));
  const total = items.reduce((sum, [sku, count]) => sum + (catalogue.get(sku)?.price ?? 0) * count, 0);
  $('cart-total').textContent = items.length ? `Total: ${money(total)}` : '';
  $('buy').disabled = items.length === 0;
}

$('buy').addEventListener('click', async () => {
  const id = `order-${Date.now().toString(36)}`;
  const answer = await ask('POST', '/api/buy', { body: { version: cart.version, id }, personal: 'SessionLayer' });
  if (answer.status === 401) {
    $('cart-total').textContent = 'Log in to buy: write any name above.';
    $('name').focus();
    return;
  }
  await loadCart(true);
  if (answer.ok) view('history');
  else $('cart-total').textContent = answer.data?.detail ?? 'That did not work.';
});

function orderRows(orders) {
  const rows = Object.entries(orders ?? {}).reverse().map(([id, order]) => el('li', {}, el('code', {}, id),
    el('span', {}, Object.entries(order.items).map(([sku, count]) => `${count} × ${catalogue.get(sku)?.name ?? sku}`).join(', ')),
    el('b', {}, money(order.total))));
  return rows.length ? rows : [el('li', {}, 'Nothing yet.')];
}

async function history() {
  const answer = await ask('GET', '/api/history', { personal: 'SessionLayer' });
  $('orders').replaceChildren(...(answer.ok ? orderRows(answer.data.orders) : [el('li', {}, 'The history does not answer.')]));
}

async function profile() {
  const answer = await ask('GET', '/api/profile', { personal: 'Aggregate' });
  if (answer.status === 401) return $('profile-content').replaceChildren(el('p', {}, 'Log in to see it: write any name above.'));
  if (!answer.ok) return $('profile-content').replaceChildren(el('p', {}, `A part that is required failed: ${answer.data?.detail ?? answer.status}`));
  const { data, errors } = answer.data;
  const failed = errors?.orders;
  $('profile-content').replaceChildren(
    el('p', { class: 'note' }, answer.headers.get('x-aggregate-complete') === 'true' ? 'Complete: three services, asked at once.' : 'Not complete: one service failed, the others are shown.'),
    el('h3', {}, `${data.who.name} (identity)`),
    el('h3', {}, 'Orders (history)'),
    el('ul', { class: 'rows' }, ...(failed ? [el('li', {}, `failed with ${failed.status}`)] : orderRows(data.orders?.orders))),
    el('h3', {}, 'For you (products)'),
    el('ul', { class: 'rows' }, ...data.picks.map((product) => el('li', {}, product.name, el('b', {}, money(product.price))))));
}

const views = { products, cart: () => loadCart(false), history, profile };
function view(name) {
  for (const section of document.querySelectorAll('.view')) section.hidden = section.id !== name;
  for (const tab of document.querySelectorAll('[data-view]')) {
    if (tab.dataset.view === name) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  return views[name]();
}
for (const tab of document.querySelectorAll('[data-view]')) tab.addEventListener('click', () => view(tab.dataset.view));

// Who it is.

function user(name) {
  $('login').hidden = Boolean(name);
  $('user').hidden = !name;
  $('user-name').textContent = name ?? '';
}

$('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const name = $('name').value.trim();
  const answer = await ask('POST', '/api/login', { body: { name }, personal: 'SessionLayer' });
  if (answer.ok) {
    user(name);
    await loadCart(true);
  }
});
$('logout').addEventListener('click', async () => {
  await ask('POST', '/api/logout', { personal: 'SessionLayer' });
  user(null);
  await loadCart(true);
});

// The stampede.

const svg = (name, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

function crowd() {
  const dots = [];
  for (let n = 0; n < 500; n++) {
    const angle = n * 2.39996;
    const radius = Math.sqrt(n / 500);
    dots.push(svg('circle', { cx: (120 + 108 * radius * Math.cos(angle)).toFixed(1), cy: (100 + 88 * radius * Math.sin(angle)).toFixed(1), r: 2.6 }));
  }
  const label = (x, text) => { const node = svg('text', { x, y: 206 }); node.textContent = text; return node; };
  $('crowd').replaceChildren(
    svg('path', { class: 'way', d: 'M318 100h92' }), ...dots,
    svg('path', { class: 'gate', d: 'M262 140V60h14v12h10V60h14v12h10V60h14v80h-18v-26a13 13 0 0 0-26 0v26z' }),
    svg('rect', { class: 'service', x: 412, y: 70, width: 64, height: 60, rx: 8 }),
    label(120, '500 visitors'), label(293, 'gateway'), label(444, 'products'));
  return dots;
}
let dots = crowd();

$('stampede').addEventListener('click', async () => {
  const button = $('stampede');
  button.disabled = true;
  $('crowd').classList.remove('done');
  $('stampede-text').textContent = '500 visitors ask…';
  try {
    const response = await fetch('/demo/stampede', { method: 'POST' });
    const { requests, origin, took_ms, layers } = await response.json();
    const [misses, hits] = [layers.MISS ?? 0, layers.HIT ?? 0];
    dots.forEach((dot, n) => dot.setAttribute('class', n < misses ? 'one' : n < misses + hits ? 'hit' : ''));
    $('crowd').classList.add('done');
    const text = $('stampede-text');
    text.replaceChildren(el('strong', { id: 'stampede-requests' }, String(requests)), ' requests, ',
      el('strong', { id: 'stampede-origin' }, String(origin)), ` call${origin === 1 ? '' : 's'} to the service, ${took_ms.toFixed(0)} ms for all of them. `,
      Object.entries(layers).map(([what, count]) => `${count} ${what}`).join(', '), '.');
    log('stampede: GET /api/products/…', 'COALESCED', 'CoalesceLayer', `${requests} requests, ${origin} call to products`, [`${took_ms.toFixed(0)} ms in all`]);
  } catch {
    $('stampede-text').textContent = 'The storefront does not answer.';
  }
  button.disabled = false;
  panel();
});

// The other buttons.

async function press(button, path, body, said) {
  button.disabled = true;
  try {
    const response = await fetch(path, { method: 'POST', body: body && JSON.stringify(body), headers: body ? { 'content-type': 'application/json' } : {} });
    const type = response.headers.get('content-type') ?? '';
    const data = type.includes('json') ? await response.json() : await response.text();
    said(response.ok, data);
  } catch {
    log(path, 'FAILED', 'the browser', 'the storefront does not answer', []);
  }
  button.disabled = false;
  panel();
}

for (const button of document.querySelectorAll('[data-purge]')) {
  const [tag, soft] = [button.dataset.purge, 'soft' in button.dataset];
  button.addEventListener('click', () => press(button, '/demo/purge', { tag, soft }, (ok, data) =>
    log(`${soft ? 'soft purge' : 'purge'}: ${tag}`, ok ? 'BYPASS' : 'FAILED', 'HttpCache::invalidate', ok ? (soft ? 'all that carries the tag is stale now' : 'all that carries the tag is gone') : data, [])));
}
$('warm').addEventListener('click', () => press($('warm'), '/demo/warm', null, (ok, data) =>
  log('warm', ok ? 'BYPASS' : 'FAILED', 'HttpCache::warm', data.text ?? data, ok ? [`${data.took_ms.toFixed(0)} ms for ${data.total} pages`] : [])));
$('freeze').addEventListener('click', () => press($('freeze'), '/demo/freeze', null, (ok, data) =>
  log('freeze Redis', ok ? 'BYPASS' : 'FAILED', 'RedisBackend', ok ? `it answers nobody for ${data.seconds} s: the services are asked instead, after one short timeout` : data, [])));

// The panel.

let drawn = '';
async function panel() {
  let state;
  try { state = await (await fetch('/demo/panel')).json(); } catch { return; }
  const { counts } = state;
  storeName = state.store === 'memory' ? 'memory' : 'Redis';
  $('store').textContent = storeName === 'memory' ? 'in memory' : 'on Redis';
  $('freeze').hidden = !state.can_freeze;
  $('n-ratio').textContent = counts.cacheable ? `${Math.round(100 * counts.saved / counts.cacheable)} %` : '–';
  $('n-saved').textContent = counts.saved;
  $('n-fast').textContent = ms(counts.from_store.p50_us);
  $('n-slow').textContent = ms(counts.from_services.p50_us);
  $('n-fast').title = `99th percentile: ${ms(counts.from_store.p99_us)}`;
  $('n-slow').title = `99th percentile: ${ms(counts.from_services.p99_us)}`;
  $('n-calls').textContent = counts.store_calls;
  const shares = [['HIT', counts.hit], ['COALESCED', counts.coalesced], ['STALE', counts.stale], ['REVALIDATED', counts.revalidated], ['MISS', counts.miss]];
  $('bar').replaceChildren(...shares.filter(([, count]) => count).map(([what, count]) => el('span', { class: what, style: `flex-grow:${count}` })));
  $('bar').setAttribute('aria-label', shares.map(([what, count]) => `${what}: ${count}`).join(', '));
  // Only what changed is drawn, or a button would lose the focus.
  const now = JSON.stringify(state.services.map(({ name, down }) => [name, down]));
  if (now !== drawn) {
    drawn = now;
    $('services').replaceChildren(...state.services.map(({ name, port, down }) => el('li', { class: down ? 'down' : '' },
      el('span', {}, el('b', {}, name), ' ', el('small', {}, `:${port}`)),
      el('small', { id: `requests-${name}` }, ''),
      el('button', { type: 'button', id: `switch-${name}`, 'aria-label': `${down ? 'Bring back' : 'Take down'} ${name}`, onclick: async (event) => {
        await press(event.target, `/demo/down/${name}`, null, (ok, data) => log(`${name}`, data.down ? 'FAILED' : 'BYPASS', 'the service', data.down ? 'is down' : 'is up again', []));
        $(`switch-${name}`).focus();
      } }, down ? 'Bring back' : 'Take down'))));
  }
  for (const { name, requests } of state.services) $(`requests-${name}`).textContent = `${requests} asked`;
}

(async () => {
  await panel();
  // The first answer brings the session, and is for this visitor alone.
  await ask('GET', '/api/cart', { quiet: true });
  await products();
  await loadCart(true);
  const who = await ask('GET', '/api/profile', { quiet: true });
  if (who.ok) user(who.data.data.who.name);
  setInterval(panel, 1000);
})();

#!/usr/bin/env python3
"""Stress, model check and lease check of the Lua scripts, by a client that shares no line with the crate.

The protocol is described in src/backend/redis/mod.rs, and in the scripts. Nothing but the standard library and a
Redis >= 7 of one's own (it is FLUSHED) is needed:

    redis-server --port 7200 --save '' --appendonly no
    stress_mget.py [--port 7200] [--lua DIR] stress [--seconds 15] [--chaos] [--skew] [--evict]
                   [--leases] [--control absent0|create0|skiptags|lateticket|commitclock|forder|equalf]
    stress_mget.py model                 exhaustive check of the read rule, and of broken ones
    stress_mget.py lease                 one fetch, crash, uncacheable, error hold, hand-over
    stress_mget.py checks                tickets, variants, drop, paused leader, held, shared_map

A stale hit is a hit whose value is older than an invalidation that had returned before the read
began. Exit status: 0 as expected (a control is expected to show stale hits, equalf torn ones), 1 not,
3 where too little was seen.
"""
import argparse, collections, json, multiprocessing as mp, os, random, signal, socket, struct, sys, time

LUA = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../src/backend/redis/lua')
ARGS = None

# ---------------------------------------------------------------- a small Redis client


class RedisError(Exception):
    pass


def pack(args):
    out = [b'*%d\r\n' % len(args)]
    for a in args:
        if not isinstance(a, bytes):
            a = str(a).encode()
        out.append(b'$%d\r\n%b\r\n' % (len(a), a))
    return b''.join(out)


class Redis:
    def __init__(self, port=None):
        self.s = socket.create_connection(('127.0.0.1', port or ARGS.port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.s.makefile('rb', 1 << 16)

    def read(self, nested=False):
        line = self.f.readline()
        if not line:
            raise ConnectionError('closed')
        k, v = line[:1], line[1:-2]
        if k == b'$':
            n = int(v)
            return None if n < 0 else self.f.read(n + 2)[:-2]
        if k == b'*':
            return None if v == b'-1' else [self.read(True) for _ in range(int(v))]
        if k == b':':
            return int(v)
        if k == b'+':
            return v
        e = RedisError(v.decode())
        if nested:
            return e
        raise e

    def __call__(self, *args):
        self.s.sendall(pack(args))
        return self.read()

    def many(self, cmds):
        self.s.sendall(b''.join(map(pack, cmds)))
        return [self.read(True) for _ in cmds]


def script_texts(control=None, skew=False):
    d = {n: open(os.path.join(ARGS.lua, n + '.lua')).read() for n in ('acquire', 'commit', 'release', 'invalidate', 'shared_map')}

    def sub(name, a, b):
        assert a in d[name], (name, a)
        d[name] = d[name].replace(a, b)
    if skew:                      # a server clock that jumps, also backwards
        for n in ('acquire', 'release', 'invalidate'):
            sub(n, "redis.call('TIME')", "(function() local t = redis.call('TIME') "
                "return { t[1] + (redis.call('GET', 'skew') or 0), t[2] } end)()")
    if control == 'create0':      # broken: a new cell starts at zero
        sub('commit', "struct.pack('<dd', hard_inv, soft_inv)", "struct.pack('<dd', 0, 0)")
        sub('commit', "= hard_inv, soft_inv, '', ''", "= 0, 0, '', ''")
        sub('commit', 'not (F >= hard_inv)', 'not (F >= 0)')
        sub('acquire', "struct.pack('<dd', hard_inv, soft_inv)", "struct.pack('<dd', 0, 0)")
    if control == 'forder':       # broken: order against the clock's birth instead of identity
        sub('commit', 'born ~= born0 or not (F <= tick)', 'not (F >= born)')
        sub('commit', 'b1 ~= born or F1 > tick', 'not (F1 >= born)')
        sub('acquire', 'b == born and F <= tick and F > since_F', 'F >= born and F > since_F')
    if control == 'equalf':       # broken: a second answer with the same ticket replaces the first
        sub('commit', 'F1 >= F then', 'F1 > F then')
    return d


class Scripts:
    def __init__(self, r, texts):
        self.r, self.t = r, texts
        self.sha = {n: r('SCRIPT', 'LOAD', t) for n, t in texts.items()}

    def __call__(self, name, keys, args):
        try:
            return self.r('EVALSHA', self.sha[name], len(keys), *keys, *args)
        except RedisError as e:
            if not str(e).startswith('NOSCRIPT'):
                raise
            return self.r('EVAL', self.t[name], len(keys), *keys, *args)

    def store(self, e, p, c, l, s, tags, owner, life, vary, channel, blob, variant=b''):
        """Stage the blob and commit it: one pipeline."""
        args = [5 + len(tags), e, p, c, l, s] + tags + [owner, life, vary, variant, channel, 'store', 0]
        a, v = self.r.many([('SET', s, blob, 'PX', 60_000), ['EVALSHA', self.sha['commit']] + args])
        if isinstance(v, RedisError) and str(v).startswith('NOSCRIPT'):
            v = self.r('EVAL', self.t['commit'], *args)
        for x in (a, v):
            if isinstance(x, RedisError):
                raise x
        return v

    def refresh(self, e, p, c, l, tags, owner, life, vary, channel, base_F, head, variant=b''):
        return self('commit', [e, p, c, l, e] + tags, [owner, life, vary, variant, channel, 'refresh', '%d' % base_F, head])

    def drop(self, e, p, c, l, owner, channel, F, born):
        return self('commit', [e, p, c, l, e], [owner, 1, '', '', channel, 'drop', 0, head(F, born, 0, 0, [], b'')])


# ---------------------------------------------------------------- the formats

PRE = struct.Struct('<BBHIdddd')     # ver flags ntags body_off F born fresh_at dead_at
CLK = struct.Struct('<ddddd')        # tick born hard_inv soft_inv all_soft
CELL = struct.Struct('<dd')          # hard soft; a tag cell, and a primary cell whose spec is not known
PCELL = struct.Struct('<ddHH')       # hard soft spec_len variants, then the spec and 8 bytes for each variant


def digest(i):
    return struct.pack('<Q', (i + 1) * 0x9E3779B97F4A7C15 & (2 ** 64 - 1))


def tkey(b, d):
    return b'gh:{%d}:t:' % b + d


def ckey(b):
    return b'gh:{%d}:c' % b


def key(b, kind, name):
    return b'gh:{%d}:%b:%b' % (b, kind, name)


def head(F, born, fresh, dead, digests, hdr, body_off=0):
    n = PRE.size + 8 * len(digests) + len(hdr)
    if body_off < n:
        body_off = (n + 63) // 64 * 64
    return (PRE.pack(1, 0, len(digests), body_off, F, born, fresh, dead) + b''.join(digests) + hdr).ljust(body_off, b'\0')


class Entry:
    __slots__ = ('F', 'born', 'fresh', 'dead', 'tags', 'at', 'off', 'raw')

    def hdr(self):
        return self.raw[self.at:self.off].rstrip(b'\0')

    def body(self):
        return self.raw[self.off:]


def parse(raw):
    """-> (Entry or None, F as far as readable)"""
    if not raw or len(raw) < PRE.size:
        return None, 0
    v, _, n, off, F, born, fresh, dead = PRE.unpack_from(raw)
    if v != 1:
        return None, 0
    if not PRE.size + 8 * n <= off <= len(raw):
        return None, F
    e = Entry()
    e.F, e.born, e.fresh, e.dead, e.off, e.at, e.raw = F, born, fresh, dead, off, PRE.size + 8 * n, raw
    e.tags = [raw[PRE.size + 8 * i:PRE.size + 8 * i + 8] for i in range(n)]
    return e, F


def primary(p):
    """-> (the cell counts as present, spec or None)"""
    if p and len(p) >= PCELL.size:
        _, _, m, k = PCELL.unpack_from(p)
        return len(p) == PCELL.size + m + 8 * k, p[PCELL.size:PCELL.size + m] or None
    return bool(p) and len(p) == CELL.size, None


def usable(e, c, p, cells, control=None):
    """THE READ RULE -> (usable, stale_since or None). c: newest clock read; cells: digest -> raw or None"""
    if not c or len(c) != CLK.size:
        return False, None
    tick, born, hard_inv, soft_inv, all_soft = CLK.unpack(c)
    if control == 'forder':
        if not e.F >= born:
            return False, None
    elif e.born != born or not e.F <= tick:
        return False, None
    if control == 'absent0':
        hard_inv = soft_inv = 0
    since = None if e.F >= all_soft else all_soft
    for raw, exact in [(p, False)] + [(cells.get(d), True) for d in e.tags]:
        if len(raw or b'') == CELL.size if exact else primary(raw)[0]:
            hard, soft = CELL.unpack_from(raw)
        else:
            hard, soft = hard_inv, soft_inv
        if not e.F >= hard:
            return False, None
        if not e.F >= soft:
            since = soft if since is None else min(since, soft)
    return True, since


# ---------------------------------------------------------------- stress

NK, NT = 10, 6
SPECS = [b'-', b'v:lang', b'v:lang,enc']
ALL = NT + NK


def suffix(spec, req):
    """The end of the entry's key: nothing, or ':' and the 8 bytes of the variant"""
    return {b'-': b'', b'v:lang': b':l%d......' % req[0], b'v:lang,enc': b':l%de%d....' % req}[spec]


class World:
    """What the origin knows, in shared memory: versions written, versions whose invalidation returned."""

    def __init__(self):
        a = lambda n: mp.Array('q', n, lock=False)
        self.db, self.done, self.sdb, self.sdone = (a(ALL + 1) for _ in range(4))
        self.spec = a(NK)
        self.locks = [mp.Lock() for _ in range(ALL + 1)]


def nap(x):
    time.sleep(random.random() * x)


def invalidator(w, seed, stop, q, texts):
    random.seed(seed)
    S = Scripts(Redis(), texts)
    n = collections.Counter()
    while time.time() < stop:
        x = random.random()
        soft = random.random() < 0.4
        if x < 0.02:
            i, keys, mode = ALL, [], 'all-soft' if soft else 'all-hard'
        else:
            i = random.randrange(NT) if x < 0.8 else NT + random.randrange(NK)
            keys, mode = [tkey(0, digest(i)) if i < NT else key(0, b'p', b'%d' % (i - NT))], 'soft' if soft else 'hard'
        with w.locks[i]:
            db, done = (w.sdb, w.sdone) if soft else (w.db, w.done)
            v = db[i] + 1
            db[i] = v
            S('invalidate', [ckey(0)] + keys, [mode, 'gh:{0}:i'])
            done[i] = v
        n[mode] += 1
        nap(ARGS.inv_ms / 1000)
    q.put(n)


class Client:
    def __init__(self, w, texts, control):
        self.w, self.r, self.control = w, Redis(), control
        self.S = Scripts(self.r, texts)
        self.hspec, self.htags = {}, {}
        self.n = collections.Counter()

    def lookup(self, k, req):
        """-> (entry or None, stale_since, F seen, suffix). The only calls are MGETs. The newest clock read is
        left in self.clock: it is the ticket."""
        n, p = self.n, None
        self.clock = None
        name = b'%d' % k
        spec = self.hspec.get(k, b'-')
        sfx = suffix(spec, req)
        tags = list(self.htags.get((k, sfx), ()))
        raw = self.r('MGET', key(0, b'e', name + sfx), key(0, b'p', name), ckey(0), *[tkey(0, d) for d in tags])
        e_raw, p, c, cells = raw[0], raw[1], raw[2], dict(zip(tags, raw[3:]))
        self.clock = c
        reads = 1
        named = primary(p)[0] and primary(p)[1]
        if named in SPECS and named != spec:
            self.hspec[k] = spec = named
            s2 = suffix(spec, req)
            if s2 != sfx:                                    # another variant: read it, and the clock, anew
                sfx = s2
                more = [d for d in self.htags.get((k, sfx), ()) if d not in cells]
                raw = self.r('MGET', key(0, b'e', name + sfx), ckey(0), *[tkey(0, d) for d in more])
                e_raw, c = raw[0], raw[1]
                self.clock = c
                cells.update(zip(more, raw[2:]))
                reads += 1
        e, F = parse(e_raw)
        if e is None:
            n['read_absent' if not e_raw else 'read_bad'] += 1
            return None, None, F, sfx
        more = [d for d in e.tags if d not in cells]
        if more and self.control == 'skiptags':              # broken: what the hint did not cover is not checked
            e.tags = [d for d in e.tags if d in cells]
        elif more:
            raw = self.r('MGET', ckey(0), *[tkey(0, d) for d in more])
            self.clock = c = raw[0]                          # the newest clock judges everything
            cells.update(zip(more, raw[1:]))
            reads += 1
        self.htags[k, sfx] = tuple(e.tags)
        ok, since = usable(e, c, p, cells, self.control)
        if not ok:
            n['read_invalid'] += 1
            return None, None, F, sfx
        h = json.loads(e.hdr())
        if suffix(h['spec'].encode(), req) != sfx:           # the entry's own Vary decides
            n['read_othervary'] += 1
            return None, None, F, sfx
        n['hit_%dmget' % reads] += 1
        return e, since, F, sfx

    def origin(self, k, req):
        """A response: tags, header, body; versions are read one by one, with pauses."""
        w = self.w
        ids = [(k + j) % NT for j in range(2)] + random.sample(range(NT), random.choice((0, 0, 1, 2)))
        ids = list(dict.fromkeys(ids))
        spec = SPECS[w.spec[k]]
        nap(0.002)
        soft = {i: w.sdb[i] for i in ids + [NT + k, ALL]}
        vals = {}
        for i in ids + [NT + k, ALL]:
            vals[i] = w.db[i]
            if random.random() < 0.2:
                nap(0.001)
        nap(0.002)
        bid = random.getrandbits(48)
        hdr = {'spec': spec.decode(), 'soft': soft, 'bid': bid, 'pad': 'x' * random.randrange(40)}
        body = {'vals': vals, 'bid': bid, 'lang': req[0], 'enc': req[1], 'fill': 'y' * random.choice((0, 100, 3000))}
        return ids, spec, hdr, json.dumps(body).encode()

    def fetch(self, k, req, sfx, since_F, old):
        n, name = self.n, b'%d' % k
        lease = 200 if ARGS.leases or random.random() < 0.3 else 0
        owner = os.urandom(16) if lease else b''
        l, e, c, p = key(0, b'l', name + sfx), key(0, b'e', name + sfx), ckey(0), key(0, b'p', name)
        pin = [tkey(0, d) for d in self.htags.get((k, sfx), ())] if random.random() < 0.5 else []
        got = None
        if self.control == 'lateticket':                     # broken: ticket after the origin was asked
            got = self.origin(k, req)
        clock = self.clock if self.clock and len(self.clock) == CLK.size else None
        if clock and not lease and not (pin and random.random() < 0.3):
            F, born = CLK.unpack(clock)[:2]                  # the look-up was the ticket
            if self.control == 'lateticket':
                F, born = CLK.unpack((self.r('GET', c) or b'').ljust(CLK.size, b'\0'))[:2]
            now = int(time.time() * 1e6)
            n['ticket_lookup'] += 1
        else:
            a = self.S('acquire', [l, e, c, p] + pin, [owner, lease, '%d' % since_F, 2000])
            n['acq_' + a[0].decode()] += 1
            if a[0] not in (b'granted', b'ticket', b'uncacheable'):
                if a[0] == b'held':
                    nap(0.002)
                return
            F, born, now = float(a[1]), float(a[2]), a[3]
        x = random.random()
        if x < 0.02:
            return                                           # crash
        if x < 0.04 and lease:
            self.S('release', [l], [owner, random.choice(('release', 'uncacheable', 'error')), 20, 'gh:{0}:w'])
            return
        if x < 0.06 and old:                                 # the origin's answer must not be reused
            nap(0.004)
            n['commit_' + self.S.drop(e, p, c, l, owner, 'gh:{0}:w', F, born).decode()] += 1
            return
        fresh, dead, life = now + random.choice((20_000, 10 ** 6)), now + 20 * 10 ** 6, random.choice((300, 20_000))
        base = 0
        if old and random.random() < 0.9 and got is None:    # conditional request
            nap(0.002)
            body = json.loads(old.body())
            ids = [int(i) for i in body['vals'] if int(i) < NT]
            soft = {i: self.w.sdb[i] for i in ids + [NT + k, ALL]}
            if all(self.w.db[int(i)] == v for i, v in body['vals'].items()):
                h = json.loads(old.hdr())
                h['soft'] = soft
                if random.random() < 0.4:
                    h['pad'] = 'x' * random.randrange(120)
                nap(0.002)
                base, spec = old.F, h['spec'].encode()
                blob = head(F, born, fresh, dead, [digest(i) for i in ids], json.dumps(h).encode(), old.off)
                if len(blob) != old.off:                     # the head has outgrown its room: store it anew
                    base, blob = 0, blob + old.body()
                n['304_stored' if not base else '304_in_place'] += 1
                got = True
        if got is not True:
            ids, spec, hdr, body = got or self.origin(k, req)
            blob = head(F, born, fresh, dead, [digest(i) for i in ids], json.dumps(hdr).encode()) + body
        sfx = suffix(spec, req)
        e, tags = key(0, b'e', name + sfx), [tkey(0, digest(i)) for i in ids]
        if self.control == 'commitclock':                    # broken: the ticket is the clock as the commit finds it
            clock = self.r('GET', c)
            if clock and len(clock) == CLK.size:
                blob = blob[:8] + clock[:16] + blob[24:]
        if base:
            v = self.S.refresh(e, p, c, l, tags, owner, life, spec, 'gh:{0}:w', base, blob, sfx[1:])
        else:
            v = self.S.store(e, p, c, l, key(0, b's', os.urandom(8)), tags, owner, life, spec, 'gh:{0}:w', blob, sfx[1:])
        n['commit_' + v.decode()] += 1
        if v == b'malformed' and self.control != 'equalf':   # there a base_F has come to name an entry of another shape
            raise SystemExit('malformed')
        if v == b'stored':
            self.hspec[k] = spec
            self.htags[k, suffix(spec, req)] = tuple(digest(i) for i in ids)


def reader(w, seed, stop, q, texts, control):
    random.seed(seed)
    cl = Client(w, texts, control)
    n = cl.n
    while time.time() < stop:
        k, req = random.randrange(NK), (random.randrange(2), random.randrange(2))
        if random.random() < 0.05:
            cl.hspec.pop(k, None)
            cl.htags.clear()
        done, sdone = w.done[:], w.sdone[:]                  # what had returned before the read began
        try:
            e, since, F, sfx = cl.lookup(k, req)
            stale = e is not None and (since is not None or time.time() * 1e6 >= e.fresh)
            if e is not None:
                h, body = json.loads(e.hdr()), json.loads(e.body())
                n['hit'] += 1
                n['hit_stale_served' if stale else 'hit_fresh'] += 1
                if any(v < done[int(i)] for i, v in body['vals'].items()):
                    n['STALE'] += 1
                if since is None and any(v < sdone[int(i)] for i, v in h['soft'].items()):
                    n['SOFT_MISSED'] += 1
                if h['bid'] != body['bid']:
                    n['TORN'] += 1
                if suffix(h['spec'].encode(), req) != suffix(h['spec'].encode(), (body['lang'], body['enc'])):
                    n['WRONG_VARIANT'] += 1
            if e is None or (stale and random.random() < 0.5):
                cl.fetch(k, req, sfx, F, e)
        except RedisError as x:
            n['error ' + str(x)[:40]] += 1
    q.put(n)


def chaos(w, seed, stop, q):
    random.seed(seed)
    r, n = Redis(), collections.Counter()
    while time.time() < stop:
        nap(0.012)
        k, x = b'%d' % random.randrange(NK), random.random()
        any_e = [k + suffix(s, (a, b)) for s in SPECS for a in (0, 1) for b in (0, 1)]
        t = tkey(0, digest(random.randrange(NT)))
        if x < 0.06:
            r('DEL', ckey(0)); n['del c'] += 1
        elif x < 0.40:
            r('DEL', t); n['del t'] += 1
        elif x < 0.55:
            r('DEL', key(0, b'p', k)); n['del p'] += 1
        elif x < 0.65:
            r('DEL', *[key(0, b'e', s) for s in any_e]); n['del e'] += 1
        elif x < 0.72:
            r('DEL', *[key(0, b'l', s) for s in any_e]); n['del l'] += 1
        elif x < 0.76:
            r('SCRIPT', 'FLUSH'); n['script flush'] += 1
        elif x < 0.80:
            ks = [t, key(0, b'p', k)] + [tkey(0, digest(i)) for i in range(NT)] + ([ckey(0)] if random.random() < 0.2 else [])
            r('DEL', *ks); n['del many'] += 1
        elif x < 0.83:
            r('FLUSHALL'); n['flushall'] += 1
        else:                                                # garbage and foreign types
            kk = random.choice([t, key(0, b'p', k), key(0, b'e', random.choice(any_e)), key(0, b'l', random.choice(any_e))]
                               + ([ckey(0)] if random.random() < 0.2 else []))
            g = random.randrange(3)
            r('DEL', kk)
            try:
                r(*(('SET', kk, os.urandom(random.choice((random.randrange(16), random.randrange(41, 60))))), ('RPUSH', kk, 'x'), ('HSET', kk, 'm', 'x'))[g])
                n['garbage'] += 1
            except RedisError:                               # somebody wrote it in between
                pass
    q.put(n)


def skewer(w, seed, stop, q):
    random.seed(seed)
    r, n = Redis(), collections.Counter()
    while time.time() < stop:
        r('SET', 'skew', random.randrange(-3, 4)); n['clock jumps'] += 1
        if random.random() < 0.3:
            r('DEL', ckey(0)); n['del c'] += 1
        nap(0.04)
    q.put(n)


def speccer(w, seed, stop, q):
    random.seed(seed)
    while time.time() < stop:
        w.spec[random.randrange(NK)] = random.randrange(3)
        nap(0.2)
    q.put(collections.Counter())


def stress():
    r, w = Redis(), World()
    r('CONFIG', 'SET', 'maxmemory', 0)
    r('FLUSHALL')
    for k in range(NK):
        w.spec[k] = random.randrange(3)
    texts = script_texts(ARGS.control, ARGS.skew)
    r('CONFIG', 'RESETSTAT')
    if ARGS.evict:
        r('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-random')
    q, stop = mp.Queue(), time.time() + ARGS.seconds
    ps = [mp.Process(target=reader, args=(w, 100 + i, stop, q, texts, ARGS.control)) for i in range(ARGS.readers)]
    ps += [mp.Process(target=invalidator, args=(w, i, stop, q, texts)) for i in range(ARGS.invalidators)]
    ps += [mp.Process(target=speccer, args=(w, 5, stop, q))]
    ps += [mp.Process(target=chaos, args=(w, 7, stop, q))] if ARGS.chaos else []
    ps += [mp.Process(target=skewer, args=(w, 8, stop, q))] if ARGS.skew else []
    [p.start() for p in ps]
    if ARGS.evict:                                           # a limit just above what the connections need
        time.sleep(1)
        used = int([x for x in r('INFO', 'memory').split(b'\r\n') if x.startswith(b'used_memory:')][0].split(b':')[1])
        r('CONFIG', 'SET', 'maxmemory', used - max(0, r('DBSIZE')) * 200)
    n = collections.Counter()
    for _ in ps:
        n.update(q.get())
    [p.join() for p in ps]
    n['evicted'] = int([x for x in r('INFO', 'stats').split(b'\r\n') if x.startswith(b'evicted_keys')][0].split(b':')[1])
    r('CONFIG', 'SET', 'maxmemory', 0)
    r('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    bad = {x: n.pop(x, 0) for x in ('STALE', 'SOFT_MISSED', 'TORN', 'WRONG_VARIANT')}
    print('mode: %s%s%s%s control=%s seconds=%g' % ('stress', ' chaos' * ARGS.chaos, ' skew' * ARGS.skew,
                                                    ' evict' * ARGS.evict, ARGS.control, ARGS.seconds))
    print('  ' + ', '.join('%s %d' % kv for kv in sorted(n.items()) if kv[1]))
    print('  RESULT hits %d ' % n['hit'] + ' '.join('%s %d' % kv for kv in bad.items()))
    if not ARGS.control and any(bad.values()):
        return 1
    seen = bad['TORN' if ARGS.control == 'equalf' else 'STALE'] if ARGS.control else n['hit']
    return 0 if seen else 3


# ---------------------------------------------------------------- model check

RULES = ['sound', 'absent0', 'create0', 'lateticket', 'commitclock', 'equaltick', 'forder', 'oldclock', 'skiptags']


def model_one(rule, clock, losses=2):
    """BFS over every interleaving of: 2 fills of one page with tag T, 1 invalidation of T, 1 invalidation of
    another tag, `losses` losses of any of c p t e, 1 read by one MGET or by two. A fill's ticket is the clock as
    a look-up reads it, or a tick drawn for a lease. The server's clock: 'advances' (each reading above every earlier tick), 'coarse' (2 or 50, never decreasing, may stand still), 'any' (2 or 50,
    in any order). Only the identity of a clock's birth is taken for granted. -> (states, counterexample or None)"""
    readings = (2, 50)
    # c = (tick, born_id, born_n, hard_inv); cell = hard; e = (F, born_id, ver)
    init = dict(c=None, p=None, t=None, e=None, db=0, ret=False, f=((0,), (0,)), inv=0, oth=0, loss=losses, rd=(0,),
                low=0, ids=0)
    K = list(init)
    seen, todo = set(), collections.deque([(tuple(init[k] for k in K), None)])
    parents = {}
    start = todo[0][0]
    seen.add(start)

    def tick(s, rd, step=1):
        t, b, bn, h = s['c']
        return max(t + step, rd), b, bn, h

    def nxt(s):
        def out(label, **ch):
            d = dict(s)
            d.update(ch)
            return label, tuple(d[k] for k in K)
        clocks = [s['low'] + 1] if clock == 'advances' else [x for x in readings if clock == 'any' or x >= s['low']]
        for i in (0, 1):
            pc = s['f'][i]

            def setf(v):
                f = list(s['f'])
                f[i] = v
                return tuple(f)
            late = rule == 'lateticket'
            if pc[0] == (1 if late else 0):                              # the ticket
                ver = pc[1] if late else None

                def ticket(c):
                    return (2, c[0], c[1], ver) if late else (1, c[0], c[1])
                if s['c'] is not None:                                   # a look-up has read the clock
                    yield out('lookup%d F=%d' % (i, s['c'][0]), f=setf(ticket(s['c'])))
                for x in clocks:                                         # acquire: a lease, or a new clock; p and t pinned or not
                    ids, c = s['ids'], s['c']
                    made = c is None
                    if made:
                        ids, c = ids + 1, (x, ids + 1, x, x)
                    d = dict(s)
                    d['c'] = c
                    for c in [tick(d, x)] + [c] * made:                  # granted; ticket only
                        low = max(s['low'], c[0] if clock == 'advances' else x)
                        ch = dict(c=c, ids=ids, f=setf(ticket(c)), low=low)
                        yield out('acquire%d F=%d' % (i, c[0]), **ch)
                        new = 0 if rule == 'create0' else c[3]
                        yield out('acquire%d+pin F=%d' % (i, c[0]), **ch,
                                  p=new if s['p'] is None else s['p'], t=new if s['t'] is None else s['t'])
            elif pc[0] == (0 if late else 1):                            # the origin reads its database
                yield out('origin%d reads v%d' % (i, s['db']), f=setf((1, s['db']) if late else (2,) + pc[1:] + (s['db'],)))
            elif pc[0] == 2:                                             # commit
                F, b, ver = pc[1:]
                c, fin = s['c'], setf((3,))
                if rule == 'commitclock' and c is not None:
                    F, b = c[:2]
                if c is None or (not F >= c[2] if rule == 'forder' else b != c[1] or F > c[0]):
                    yield out('commit%d clock_lost' % i, f=fin)
                    continue
                e = s['e']
                if e and (e[0] >= c[2] if rule == 'forder' else e[1] == c[1] and e[0] <= c[0]) and e[0] >= F:
                    yield out('commit%d superseded' % i, f=fin)
                    continue
                ok, w = True, {}
                for k in 'pt':
                    h = s[k]
                    if h is None or h > c[0]:
                        h = w[k] = 0 if rule == 'create0' else c[3]
                    ok = ok and F >= h
                yield out('commit%d %s' % (i, 'stored v%d' % ver if ok else 'refused'), f=fin, **w,
                          **({'e': (F, b, ver), 'c': (c[0] + 1,) + c[1:], 'low': max(s['low'], c[0] + 1) if clock == 'advances' else s['low']} if ok else {}))
        if s['inv'] == 0:
            yield out('db write v1', db=1, inv=1)
        for who in ('inv', 'oth'):                                       # invalidate T; invalidate something else
            if s[who] == (1 if who == 'inv' else 0):
                done = {who: 2}
                if who == 'inv':
                    done['ret'] = True
                if s['c'] is None:
                    yield out(who + ' no clock', **done)
                else:
                    for x in clocks:
                        c = tick(s, x, rule != 'equaltick')
                        w = {'t': c[0]} if who == 'inv' and s['t'] is not None else {}
                        yield out('%s s=%d' % (who, c[0]), c=(c[0], c[1], c[2], c[0]), **w, **done,
                                  low=max(s['low'], c[0] if clock == 'advances' else x))
        if s['loss']:
            for k in 'cpte':
                if s[k] is not None:
                    yield out('lose ' + k, loss=s['loss'] - 1, **{k: None})
        rd = s['rd']

        def verdict(e, c, p, t):
            if e is None or c is None:
                return False
            if not e[0] >= c[2] if rule == 'forder' else e[1] != c[1] or e[0] > c[0]:
                return False
            a = 0 if rule == 'absent0' else c[3]
            return e[0] >= (a if p is None else p) and (rule == 'skiptags' and t == 'unread' or e[0] >= (a if t is None else t))
        if rd[0] == 0:                                                   # the read begins; first MGET, with t or without
            hit = verdict(s['e'], s['c'], s['p'], s['t'])
            yield out('read: %s' % hit, rd=(9, hit and s['ret'] and s['e'][2] == 0))
            if s['e'] is not None and s['c'] is not None:
                if rule == 'skiptags':
                    hit = verdict(s['e'], s['c'], s['p'], 'unread')
                    yield out('read without t: %s' % hit, rd=(9, hit and s['ret'] and s['e'][2] == 0))
                else:
                    yield out('read 1st', rd=(1, s['e'], s['c'], s['p'], s['ret']))
        elif rd[0] == 1:                                                 # second MGET: clock and t
            _, e, c1, p, ret = rd
            hit = verdict(e, c1 if rule == 'oldclock' else s['c'], p, s['t'])
            yield out('read 2nd: %s' % hit, rd=(9, hit and ret and e[2] == 0))

    while todo:
        st, _ = todo.popleft()
        s = dict(zip(K, st))
        if s['rd'][0] == 9 and s['rd'][1]:
            path = []
            while st != start:
                st, lab = parents[st]
                path.append(lab)
            return len(seen), path[::-1]
        if s['rd'][0] == 9:
            continue
        for lab, ns in nxt(s):
            if ns not in seen:
                seen.add(ns)
                parents[ns] = (st, lab)
                todo.append((ns, None))
    return len(seen), None


def model():
    bad = 0
    for rule in RULES:
        for clock in ('advances', 'coarse', 'any'):
            n, ce = model_one(rule, clock, ARGS.losses)
            # order against birth, the clock of the first MGET, an invalidation that need not tick: need a clock that advances
            expect = rule != 'sound' and (clock != 'advances' or rule not in ('forder', 'oldclock', 'equaltick'))
            bad += bool(ce) != expect
            print('%-10s clock %-9s %8d states  %s%s' % (rule, clock, n, 'STALE: ' + '; '.join(ce) if ce else
                                                         'no stale read', '' if bool(ce) == expect else '   UNEXPECTED'))
            sys.stdout.flush()
    return 1 if bad else 0


# ---------------------------------------------------------------- leases

L, E, C, P = b'gh:{0}:l:x', b'gh:{0}:e:x', b'gh:{0}:c', b'gh:{0}:p:x'


def hkey(F):
    return b'gh:{0}:h:x:%d' % F


def follower(i, start, kind, q, leader_pid, fetches):
    r, sub = Redis(), Redis()
    S = Scripts(r, script_texts())
    sub('SSUBSCRIBE', 'gh:{0}:w')
    time.sleep(max(0, start - time.time()))
    t0, lease_ms, how, named = time.time(), 1000, '', [0, 0]
    while True:
        raw = r('MGET', E, P, C)
        e, F0 = parse(raw[0])
        if e and usable(e, raw[2], raw[1], {})[0]:
            how = 'hit'
            break
        if named[0]:                                         # only the fill that `held` named, and no other
            e, _ = parse(r('GET', hkey(named[0])))
            if e and [e.F, e.born] == named:
                how = 'handed over'
                break
        owner = os.urandom(16)
        a = S('acquire', [L, E, C, P], [owner, lease_ms, '%d' % F0, 5000])
        named = a[2:4] if kind == 'handover' and a[0] == b'held' else [0, 0]
        if a[0] in (b'granted', b'uncacheable'):
            with fetches.get_lock():
                fetches.value += 1
            F, born, now = float(a[1]), float(a[2]), a[3]
            if kind == 'crash' and leader_pid.value == 0:
                leader_pid.value = os.getpid()
                time.sleep(60)                               # the parent kills this process
            if kind == 'uncacheable':
                time.sleep(0.05)                             # the headers
                S('release', [L], [owner, 'uncacheable', 10_000, 'gh:{0}:w'])
                time.sleep(0.15)
            elif kind == 'error':
                time.sleep(0.2)
                S('release', [L], [owner, 'error', 1000, 'gh:{0}:w'])
            elif kind == 'long':                             # longer than the lease: renewed
                for _ in range(4):
                    time.sleep(0.5)
                    assert S('release', [L], [owner, 'renew', lease_ms, '']) == 1
            else:
                time.sleep(0.2)
            if kind in ('normal', 'crash', 'long'):
                S.store(E, P, C, L, b'gh:{0}:s:' + owner, [], owner, 60_000, '-', 'gh:{0}:w',
                        head(F, born, now + 3e7, now + 6e7, [], b'{}') + b'B' * 1000)
            if kind == 'handover':                           # not stored, only handed to those who wait
                r('SET', hkey(F), head(F, born, now, now, [], b'{}') + b'B' * 1000, 'PX', 5000)
                S('release', [L], [owner, 'release', 0, 'gh:{0}:w'])
            how = 'fetch'
            break
        if a[0] == b'error':
            how = 'error'
            break
        if a[0] == b'held':
            end = time.time() + a[1] / 1000 + random.random() * 0.02
            while time.time() < end:
                sub.s.settimeout(max(0.001, end - time.time()))
                try:
                    if sub.read()[2] == L:
                        break
                except (TimeoutError, OSError):              # the makefile reader is spoilt after a time-out
                    sub = Redis()
                    sub('SSUBSCRIBE', 'gh:{0}:w')
                    break
    q.put((how, time.time() - t0))


def lease():
    bad = 0
    for kind, n_fetch, longest in (('normal', 1, 0.6), ('crash', 2, 1.8), ('long', 1, 2.6),
                                   ('uncacheable', 24, 0.9), ('error', 1, 0.6), ('handover', 1, 0.6)):
        Redis()('FLUSHALL')
        q, pid, fetches = mp.Queue(), mp.Value('i', 0), mp.Value('i', 0)
        start = time.time() + 2
        ps = [mp.Process(target=follower, args=(i, start, kind, q, pid, fetches)) for i in range(24)]
        [p.start() for p in ps]
        n = 24
        if kind == 'crash':
            while pid.value == 0:
                time.sleep(0.001)
            os.kill(pid.value, signal.SIGKILL)
            n = 23
        o = [q.get() for _ in range(n)]
        [p.join() for p in ps]
        t = sorted(x[1] for x in o)
        ok = fetches.value == n_fetch and t[-1] <= longest
        bad += not ok
        print('%-12s origin fetches %2d  %s  time p50 %.3f max %.3f s  %s' % (
            kind, fetches.value, dict(collections.Counter(x[0] for x in o)), t[len(t) // 2], t[-1], 'ok' if ok else 'NOT OK'))
    return 1 if bad else 0


# ---------------------------------------------------------------- checks of single rules


def taker(i, start, rounds, q):
    r = Redis()
    S = Scripts(r, script_texts())
    got = []
    for n in range(rounds):
        time.sleep(max(0, start + n * 0.01 - time.time()))
        a = S('shared_map', [b'gh:{0}:m:cart%d' % n, b'gh:{0}:m:cart%d:op:%d' % (n, i)], ['take', 60_000, ''])
        again = S('shared_map', [b'gh:{0}:m:cart%d' % n, b'gh:{0}:m:cart%d:op:%d' % (n, i)], ['take', 60_000, ''])
        got.append((n, a[2], again == a))
    q.put(got)


def checks():
    r = Redis()
    S = Scripts(r, script_texts())
    W, bad = 'gh:{0}:w', []

    def check(what, got, want=True):
        if got != want:
            bad.append(what)
        print('%-76s %s' % (what, 'ok' if got == want else 'NOT OK: %r, expected %r' % (got, want)))

    def lookup(e=E):
        raw = r('MGET', e, P, C, tkey(0, digest(0)))
        ent, F = parse(raw[0])
        return ent is not None and usable(ent, raw[2], raw[1], {digest(0): raw[3]})[0], CLK.unpack(raw[2]) if raw[2] else None

    def store(c, body=b'B', e=E, tags=(), variant=b'', spec='-', owner='', life=60_000):
        return S.store(e, P, C, L, b'gh:{0}:s:' + os.urandom(8), [tkey(0, d) for d in tags], owner, life, spec, W,
                       head(c[0], c[1], 9e15, 9e15, list(tags), b'{}') + body, variant)

    def fresh():
        r('FLUSHALL')
        S('acquire', [L, E, C], ['', 0, 0, 0])
        return lookup()[1]

    # tickets
    c, T = fresh(), tkey(0, digest(0))
    check('a look-up is a ticket: stored without acquire', store(c, tags=[digest(0)]), b'stored')
    check('the same look-up may join', lookup()[0])
    check('commit has ticked the clock', lookup()[1][0] > c[0])
    check('equal ticket: the first stays', store(c), b'superseded')
    c = lookup()[1]
    S('invalidate', [C, T], ['hard', ''])
    check('invalidated after the look-up: refused', store(c, tags=[digest(0)]), b'invalidated')
    check('and the old entry is dead', lookup()[0], False)
    c = lookup()[1]
    check('looked up right after an invalidation (F == hard): stored', store(c, tags=[digest(0)]), b'stored')
    check('and served', lookup()[0])
    check('a ticket above the clock is refused', store((c[0] + 1e9, c[1])), b'clock_lost')
    c = lookup()[1]
    r('DEL', T)
    S('invalidate', [C, tkey(0, digest(1))], ['hard', ''])
    check('cell absent, something invalidated since the look-up: unsure', store(c, tags=[digest(0)]), b'unsure')
    check('the next one (F == hard_inv, cell created) is stored', store(lookup()[1], tags=[digest(0)]), b'stored')
    fresh()
    r('DEL', C)
    a = S('acquire', [L, E, C], ['', 0, 0, 0])
    check('ticket on a clock just created (F == born == hard_inv): stored', store(list(map(float, a[1:3]))), b'stored')
    t = S('acquire', [L, E, C], ['', 0, '9e15', 0])
    check('acquire without a lease draws no tick', t[1], int(lookup()[1][0]))

    # a paused leader
    c = fresh()
    a = S('acquire', [L, E, C], ['A', 20, 0, 0])
    time.sleep(0.03)
    b = S('acquire', [L, E, C], ['B', 1000, 0, 0])
    check('lease over: granted to the successor, with a younger ticket', b[0] == b'granted' and b[1] > a[1])
    check('paused leader commits before its successor: stored', store((a[1], a[2]), b'old', owner='A'), b'stored')
    check('the successor replaces it', store((b[1], b[2]), b'new', owner='B'), b'stored')
    check('paused leader commits after its successor: refused', store((a[1], a[2]), b'old', owner='A'), b'superseded')

    # held names the leader's ticket
    fresh()
    a = S('acquire', [L, E, C], ['A', 5000, 0, 0])
    check('held names the ticket of the leader', S('acquire', [L, E, C], ['B', 5000, 0, 0])[2:], a[1:3])
    for mode, keys in (('soft', [T]), ('hard', [T]), ('all-soft', []), ('all-hard', [])):
        fresh()
        S('acquire', [L, E, C], ['A', 5000, 0, 0])
        S('invalidate', [C] + keys, [mode, ''])
        check('held after %s names nothing' % mode, S('acquire', [L, E, C], ['B', 5000, 0, 0])[2:], [0, 0])

    # drop
    c = fresh()
    store(c, b'first')
    old = c
    c = lookup()[1]
    drop = lambda c: S.drop(E, P, C, L, '', W, c[0], c[1])
    check('drop with an older ticket than the entry', drop((old[0] - 1, old[1])), b'superseded')
    check('the entry is still there', lookup()[0])
    check('drop with a younger ticket', drop(c), b'dropped')
    check('nothing is served any more', r('EXISTS', E) == 0 and not lookup()[0])
    check('drop of an absent entry', drop(c), b'dropped')
    store(c)
    check('drop with the same ticket', (drop(c), r('EXISTS', E)), (b'dropped', 0))
    store(lookup()[1])
    check('drop with a ticket of a lost clock', drop((c[0], c[1] - 1)), b'clock_lost')

    # variants
    fresh()
    name = lambda i: b'vary%04d' % i
    for i in range(40):
        store(lookup()[1], e=E + b':' + name(i), variant=name(i), spec='v:lang')
    have = [i for i in range(40) if r('EXISTS', E + b':' + name(i))]
    check('40 variants stored: the last 16 are there', have, list(range(24, 40)))
    p = r('GET', P)
    check('the primary cell lists them, oldest first', p[PCELL.size:], b'v:lang' + b''.join(map(name, range(24, 40))))
    store(lookup()[1], e=E + b':' + name(24), variant=name(24), spec='v:lang')
    store(lookup()[1], e=E + b':' + name(50), variant=name(50), spec='v:lang')
    check('one stored again goes to the end', [r('EXISTS', E + b':' + name(i)) for i in (24, 25)], [1, 0])
    S('invalidate', [C, P], ['hard', ''])
    check('purge of the URL: spec and list stay', (primary(r('GET', P)), len(r('GET', P))), ((True, b'v:lang'), 20 + 6 + 128))
    check('and all variants are dead', any(lookup(E + b':' + name(i))[0] for i in range(60)), False)
    check('a variant that is not the end of the key', store(lookup()[1], e=E + b':' + name(1), variant=name(2)), b'malformed')
    r('DEL', P)
    S('acquire', [L, E, C, P], ['', 0, 0, 1000])
    check('a pinned primary cell: 16 bytes, no spec', (len(r('GET', P)), primary(r('GET', P))), (16, (True, None)))

    # shared_map
    r('FLUSHALL')
    m = lambda *a, op=None, k=b'gh:{0}:m:a': S('shared_map', [k] + ([k + b':op:' + op] if op else []), a)
    v1 = m('set', 60_000, '0', 2, 'a', '1', 'b', '2')[1]
    check('created only if absent', m('set', 60_000, '0', 1, 'a', '9')[0], 0)
    check('the version starts at the time', abs(int(v1) / 1e6 - time.time()) < 5)
    got = m('take', 60_000, v1, op=b'1')
    check('take', got, [1, v1, [b'a', b'1', b'b', b'2']])
    v2 = m('set', 60_000, '', 1, 'a', '7')[1]
    check('retry of the take, map filled anew: the first result', m('take', 60_000, v1, op=b'1'), got)
    check('the new map is untouched', r('HGET', 'gh:{0}:m:a', 'a'), b'7')
    check('an old version takes nothing', m('take', 60_000, v1, op=b'2'), [0, v2])
    check('incr with an op id', m('incr', 60_000, '', 'a', 3, 0, 100, op=b'3')[2], b'10')
    check('its retry does not add', (m('incr', 60_000, '', 'a', 3, 0, 100, op=b'3')[2], r('HGET', 'gh:{0}:m:a', 'a')), (b'10', b'10'))
    check('out of bounds', m('incr', 60_000, '', 'a', 91, 0, 100)[::2], [2, b'10'])
    check('to zero: the field goes', (m('incr', 60_000, '', 'a', -10, 0, 100)[2], r('HEXISTS', 'gh:{0}:m:a', 'a')), (b'0', 0))
    check('every key has an expiry', [k for k in r('KEYS', '*') if r('PTTL', k) < 0], [])
    check('kept for a minute at most', max(r('PTTL', k) for k in r('KEYS', '*:op:*')) <= 60_000)
    rounds, procs = 100, 4
    for n in range(rounds):
        m('set', 60_000, '', 1, 'item', str(n), k=b'gh:{0}:m:cart%d' % n)
    q, start = mp.Queue(), time.time() + 1
    ps = [mp.Process(target=taker, args=(i, start, rounds, q)) for i in range(procs)]
    [x.start() for x in ps]
    o = [y for _ in ps for y in q.get()]
    [x.join() for x in ps]
    won = collections.Counter(n for n, res, _ in o if res)
    check('take race, %d maps x %d processes: one winner each' % (rounds, procs), sorted(won.items()), [(n, 1) for n in range(rounds)])
    check('every retry got what the first attempt got', all(same for *_, same in o))
    r('FLUSHALL')
    print('%d NOT OK' % len(bad) if bad else 'all ok')
    return 1 if bad else 0


def main():
    global ARGS
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--port', type=int, default=7200)
    a.add_argument('--lua', default=LUA)
    sp = a.add_subparsers(dest='cmd', required=True)
    p = sp.add_parser('stress')
    p.add_argument('--seconds', type=float, default=15)
    p.add_argument('--readers', type=int, default=6)
    p.add_argument('--invalidators', type=int, default=2)
    p.add_argument('--inv-ms', type=float, default=4, help='longest pause between two invalidations')
    p.add_argument('--control', choices=['absent0', 'create0', 'skiptags', 'lateticket', 'commitclock', 'forder', 'equalf'])
    for x in ('chaos', 'skew', 'evict', 'leases'):
        p.add_argument('--' + x, action='store_true')
    p = sp.add_parser('model')
    p.add_argument('--losses', type=int, default=2)
    sp.add_parser('lease')
    sp.add_parser('checks')
    ARGS = a.parse_args()
    sys.exit(globals()[ARGS.cmd]())


if __name__ == '__main__':
    main()

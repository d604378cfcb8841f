// Which key this browser has, and which it is given: see visitor.py. It runs in the reader's browser, on every page of a public server.
const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const store = (name, key) => { try { localStorage.setItem(name, key); } catch { /* it stays a cookie */ } };
const forget = (name) => { try { localStorage.removeItem(name); } catch { /* nothing lies there */ } };
const cookie = (name) => document.cookie.split("; ").map(c => c.split("=")).filter(c => c[0] === name).map(c => c[1])[0];
let tabs, latest;  // the other tabs of this browser, and what this one was told last
const ASK = "?", SEEN = "ds-looked", LOOKS = 1500;  // milliseconds
let taken, giving, asked, unkept, times;  // the last key that was given, the one that is on its way, and what was said already
let mine, back, offered, timer;  // the key that the server's cookie said, and whether it was given again
let session, lost, was;  // what the server calls this tab, and the key that the browser was found not to know
const post = (data, how, key) => fetch(new URL(data.route, document.baseURI), { method: "POST", headers: { [data.check]: how }, body: key });
const listen = (data, setTriggerValue) => {  // to another tab, in which the browser was given another key
  latest = { data, setTriggerValue };
  if (tabs || typeof BroadcastChannel === "undefined") return;
  tabs = new BroadcastChannel(data.name);
  tabs.onmessage = ({ data: said }) => {
    if (said === ASK) { if (taken) tabs.postMessage(taken); return; }
    taken = said;
    if (said !== latest.data.key) latest.setTriggerValue("known", said);
  };
  for (const what of ["focus", "blur"]) window.addEventListener(what, looked);
  for (const what of [looked, look]) document.addEventListener("visibilitychange", what);
  looked();
  for (const what of ["pointerdown", "keydown"]) document.addEventListener(what, often, true);
  setTimeout(look, 1000);
  tabs.postMessage(ASK);  // of a tab that was opened while another one was given a key
};
const where = (data) => { try { return window.self === window.top ? "1" : data.framed; } catch { return data.framed; } };
const hand = (data, key) => data.served || mine  // the server's cookie says who this is, and no script can write it
  ? post(data, where(data), key).then(answer => { if (!answer.ok) throw answer.status; })
  : Promise.resolve(write(data, key));
const give = (data) => {  // once; it is this browser's when that is done, and not before
  if (giving === data.give) return;
  giving = data.give;
  hand(data, data.give).then(
    () => {
      taken = data.give;
      lost = null;
      if (mine) mine = taken;
      tabs?.postMessage(taken);
      latest.setTriggerValue("known", taken);
    },
    () => latest.setTriggerValue("refused", String(Date.now())),
  ).finally(() => { giving = null; });
};
let when = 0;
const often = () => { if (Date.now() - when > latest.data.pause) look(); };
const look = () => {  // whether the browser knows this tab's key: other tabs, and late answers, may have changed it
  const data = latest.data;
  if (!data.served || data.give || document.hidden) return;
  when = Date.now();
  post(data, data.whether, data.key)
    .then(answer => {
      lost = answer.status === 409 ? data.key : null;
      if (lost && latest.data.key === lost) latest.setTriggerValue("forgotten", lost);
    })
    .catch(() => { /* it is asked again when the tab is looked at */ });
};
// Over https any host of the domain can set a cookie of that name, and the server does not read it.
const plain = (data) => location.protocol === "https:" ? null : cookie(data.name);
const write = (data, key) => {
  if (location.protocol !== "https:") document.cookie = `${data.name}=${key}; Path=/; Max-Age=${data.seconds}; SameSite=Lax`;
  store(data.name, key);
};
const again = (data, setTriggerValue) => {  // the browser has lost the cookie while this tab stood open
  if (mine !== data.key) setTriggerValue("known", mine);
  else if (back !== mine) {
    back = mine;
    hand(data, mine).catch(() => setTriggerValue("forgotten", mine));
  }
};
// Nothing can be taken before somebody has looked: a double-click on another page, which goes away with the first one, hits this one.
const looked = () => {
  document.documentElement.classList.remove(SEEN);
  clearTimeout(timer);
  if (!document.hidden && (document.hasFocus() || window.self !== window.top)) timer = setTimeout(() => document.documentElement.classList.add(SEEN), LOOKS);
};
const reloaded = (data) => {  // once it is known whose tab it is
  try {
    const was = sessionStorage.getItem(data.name);  // what this tab was called before it was reloaded
    if (!was || was === data.tab || data.asked < 0) sessionStorage.setItem(data.name, data.tab);
    else if (data.asked !== times) {  // at once, and then every few seconds: a connection that hangs seems to be there for a while
      times = data.asked;
      setTimeout(() => latest.setTriggerValue("tab", was), data.asked ? data.pause : 0);
    }
  } catch { /* a reload begins anew */ }
};
export default function({ data, setTriggerValue }) {
  listen(data, setTriggerValue);
  if (data.offered !== offered) {
    offered = data.offered;
    looked();
  }
  if (data.tab !== session) {  // its key is the browser's
    session = data.tab;
    taken = lost = null;
  }
  if (data.give) { give(data); return; }
  // What is said while another page is being opened is not heard.
  if (taken && taken !== data.key) { setTriggerValue("known", taken); return; }
  if (lost === data.key && !data.forgotten) { setTriggerValue("forgotten", lost); return; }
  if (data.served && mine && mine !== data.key && mine !== was && taken !== data.key) {  // another tab, or a cleaner, has changed it
    was = mine;
    mine = data.key;
    setTriggerValue("was", was);
    return;
  }
  if (data.served) mine = data.key;
  else if (mine) {
    again(data, setTriggerValue);
    reloaded(data);
    return;
  }
  const here = stored(data.name), known = data.served ? null : plain(data) || here;
  if (known && known !== data.key && !data.over) { setTriggerValue("known", known); return; }
  if (!data.served) {
    write(data, data.key);
    if (plain(data) !== data.key && stored(data.name) !== data.key && !unkept) {
      unkept = true;
      setTriggerValue("forgotten", true);
      return;
    }
  }
  else if (here === data.sent) forget(data.name);  // only once the browser has brought it
  else if (here && here !== data.key && !asked) {  // of a visit without the server's cookie
    asked = true;
    setTriggerValue("old", here);
    return;
  }
  reloaded(data);
}

// Which key this browser has, and which it is given: see visitor.py. It runs in the reader's browser, on every page of a public server.
const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const store = (name, key) => { try { localStorage.setItem(name, key); } catch { /* it stays a cookie */ } };
const forget = (name) => { try { localStorage.removeItem(name); } catch { /* nothing lies there */ } };
const cookie = (name) => document.cookie.split("; ").map(c => c.split("=")).filter(c => c[0] === name).map(c => c[1])[0];
let tabs, latest;  // the other tabs of this browser, and what this one was told last
const ASK = "?";
let taken, giving, asked, unkept, times;  // the last key that was given, the one that is on its way, and what was said already
const listen = (data, setTriggerValue) => {  // to another tab, in which the browser was given another key
  latest = { data, setTriggerValue };
  if (tabs || typeof BroadcastChannel === "undefined") return;
  tabs = new BroadcastChannel(data.name);
  tabs.onmessage = ({ data: said }) => {
    if (said === ASK) { if (taken) tabs.postMessage(taken); return; }
    taken = said;
    if (said !== latest.data.key) latest.setTriggerValue("known", said);
  };
  document.addEventListener("visibilitychange", look);
  setTimeout(look, 1000);
  tabs.postMessage(ASK);  // of a tab that was opened while another one was given a key
};
const where = (data) => { try { return window.self === window.top ? "1" : data.framed; } catch { return data.framed; } };
const hand = (data) => data.served  // the server's cookie says who this is, and no script can write it
  ? fetch(new URL(data.route, document.baseURI), { method: "POST", headers: { [data.check]: where(data) }, body: data.give })
      .then(answer => { if (!answer.ok) throw answer.status; })
  : Promise.resolve(write(data, data.give));
const give = (data) => {  // once; it is this browser's when that is done, and not before
  if (giving === data.give) return;
  giving = data.give;
  hand(data).then(
    () => { taken = data.give; tabs?.postMessage(taken); latest.setTriggerValue("known", data.give); },
    () => latest.setTriggerValue("refused", String(Date.now())),
  ).finally(() => { giving = null; });
};
const look = () => {  // whether the browser knows this tab's key: other tabs, and late answers, may have changed it
  const data = latest.data;
  if (!data.served || data.give || document.hidden) return;
  fetch(new URL(data.route, document.baseURI), { method: "POST", headers: { [data.check]: data.whether }, body: data.key })
    .then(answer => { if (answer.status === 409 && latest.data.key === data.key) latest.setTriggerValue("forgotten", data.key); })
    .catch(() => { /* it is asked again when the tab is looked at */ });
};
const write = (data, key) => {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${data.name}=${key}; Path=/; Max-Age=${data.seconds}; SameSite=Lax${secure}`;
  store(data.name, key);
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
  if (data.give) { give(data); return; }
  const here = stored(data.name), known = data.served ? null : cookie(data.name) || here;
  if (known && known !== data.key && !data.over) { setTriggerValue("known", known); return; }
  if (!data.served) {
    write(data, data.key);
    if (cookie(data.name) !== data.key && stored(data.name) !== data.key && !unkept) {
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

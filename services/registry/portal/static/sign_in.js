// The link's token stands in its fragment, which browsers send to nobody; here it is exchanged for a cookie.
const state = document.getElementById("state");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  state.textContent = "Signing in…";
  history.replaceState(null, "", location.pathname);
  fetch("/portal/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  }).then((answer) => {
    if (answer.ok) location.replace("/portal/endpoints");
    else if (answer.status === 401) state.textContent = "This link is no longer valid. Ask for a new one.";
    else state.textContent = "Signing in failed. Try the link again in a moment.";
  }, () => { state.textContent = "The server cannot be reached. Try the link again in a moment."; });
}

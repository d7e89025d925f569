// The link's token stands in its fragment, which browsers send to nobody; here it is exchanged for a cookie.
const state = document.getElementById("state");
const refusals = {
  401: "This link is no longer valid. Ask for a new one.",
  403: "This link does not open the portal. Ask for another one.",
};

function signIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  state.textContent = "Signing in…";
  fetch("/portal/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  }).then(
    (answer) => {
      if (answer.ok) location.replace("/portal/endpoints");
      else state.textContent = refusals[answer.status] || "Signing in failed. Open the link again in a moment.";
    },
    () => { state.textContent = "The server cannot be reached. Open the link again in a moment."; },
  );
}

addEventListener("hashchange", signIn);
signIn();

// The page of episodes that were just played.

document.getElementById("page").append(
  el("header.top", {}, el("div.title", {}, el("h1", {}, DATA.title)), el("p.about", {}, FILMS_LEAD)),
  ...filmBrowser(DATA.films).filter(Boolean),
  el("footer", {}, "Written by forethought sample --watch."),
);
